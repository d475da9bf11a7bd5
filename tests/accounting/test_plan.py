"""A plan follows from counted sizes and stated peaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from catgan.accounting.compute import compute
from catgan.accounting.gpus import GPUS, datasheet_peak
from catgan.accounting.memory import Layout, Networks, Share, parameter_bytes, peak, whole
from catgan.accounting.plan import USABLE, bandwidth, even, plan, recomputed_passes, traffic
from catgan.accounting.published import EPOCH
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.errors import UserError
from catgan.recipes import recipe

H100 = GPUS["h100"]


def column(result: dict[str, Any], sharded: bool = False, checkpointing: bool = False) -> dict[str, Any]:
    return next(c for c in result["layouts"] if (c["sharded"], c["checkpointing"]) == (sharded, checkpointing))


def half(config: Config, penalty_precision: str = "tf32") -> Config:
    changes = {"training": {"precision": "bfloat16"}, "objective": {"penalty_precision": penalty_precision}}
    return from_dict(changes, config)


# -- time --------------------------------------------------------------------------------------------------------------


def test_arithmetic_is_two_operations_per_counted_mac_at_the_stated_share_of_the_peak(tiny_config: Config) -> None:
    gmacs = compute(tiny_config)["training"]["gmacs_per_sample"]
    result = plan(half(tiny_config, "same"), H100, 2, utilisation=0.5)
    assert result["gmacs_per_sample"] == gmacs
    seconds = column(result)["step"]["seconds"]
    assert seconds["arithmetic"] == pytest.approx(2 * gmacs * 1e9 * 4 / (0.5 * 989.4e12))
    assert column(result)["step"]["images_per_second"] == pytest.approx(8 / seconds["total"])


def test_float32_recipes_are_timed_by_the_peak_of_float32(tiny_config: Config) -> None:
    wide, narrow = (column(plan(c, H100, 1))["step"]["seconds"] for c in (tiny_config, half(tiny_config, "same")))
    assert wide["arithmetic"] / narrow["arithmetic"] == pytest.approx(989.4 / 67)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("choice", "peak"), [("tf32", 494.7), ("float32", 67.0)])
def test_penalties_in_float32_take_its_time(tiny_config: Config, choice: str, peak: float, checkpointing: bool) -> None:
    """3 of 10.5 passes of the discriminator, or 4 of 14 where each is run once more, are not at bfloat16's peak."""
    precise, rough = (
        column(plan(half(tiny_config, c), H100, 1, utilisation=1.0), checkpointing=checkpointing)["step"]["seconds"]
        for c in (choice, "same")
    )
    moved = (4 if checkpointing else 3) * 2e9 * compute(tiny_config)["discriminator"]["gmacs"] * 8
    assert precise["arithmetic"] - rough["arithmetic"] == pytest.approx(moved / peak / 1e12 - moved / 989.4e12)


def test_without_penalties_their_precision_costs_nothing(tiny_config: Config) -> None:
    none = from_dict({"objective": {"penalty": 0}}, tiny_config)
    assert plan(half(none), H100, 2)["layouts"] == plan(half(none, "same"), H100, 2)["layouts"]


def test_checkpointing_runs_each_pass_with_a_graph_once_more(tiny_config: Config) -> None:
    counted = compute(tiny_config)
    assert recomputed_passes(tiny_config) == {"generator": 1, "discriminator": 3.5}
    assert recomputed_passes(from_dict({"objective": {"penalty": 0}}, tiny_config))["discriminator"] == 3
    result = plan(tiny_config, H100, 1)
    ratio = (
        column(result, checkpointing=True)["step"]["seconds"]["arithmetic"]
        / column(result)["step"]["seconds"]["arithmetic"]
    )
    more = counted["generator"]["gmacs"] + 3.5 * counted["discriminator"]["gmacs"]
    assert ratio == pytest.approx(1 + more / counted["training"]["gmacs_per_sample"])


def test_ddp_sends_twice_the_gradients_but_for_a_gpus_own_part(tiny_config: Config) -> None:
    n = Networks(tiny_config)
    both = parameter_bytes(n.generator) + parameter_bytes(n.discriminator)
    assert traffic(n, Share(4, 2, 2), Layout(False, False)) == 2 * 3 / 4 * both
    assert traffic(n, Share(4, 2, 1), Layout(False, False)) == 2 * 3 / 4 * both  # once a step, not per micro-batch


def test_fsdp_gathers_for_every_pass_and_scatters_in_every_micro_batch(tiny_config: Config) -> None:
    n = Networks(tiny_config)
    g, d = parameter_bytes(n.generator), parameter_bytes(n.discriminator)
    sharded = Layout(True, False)
    assert traffic(n, Share(4, 2, 2), sharded) == pytest.approx(3 / 4 * (3 * g + 6 * d))
    assert traffic(n, Share(4, 2, 1), sharded) == pytest.approx(2 * 3 / 4 * (4 * g + 6 * d))


@pytest.mark.parametrize(
    ("penalties", "narrow"), [("float32", {"generator"}), ("same", {"generator", "discriminator"})]
)
def test_fsdp_gathers_blocks_in_bfloat16_but_where_penalties_need_float32(
    tiny_config: Config, penalties: str, narrow: set[str]
) -> None:
    changes = {"training": {"precision": "bfloat16"}, "objective": {"penalty_precision": penalties}}
    half, n = Networks(from_dict(changes, tiny_config)), Networks(tiny_config)
    for name in ("generator", "discriminator"):
        (outside, blocks, largest), (expected, *wide) = whole(half, name), whole(n, name)
        assert outside == expected
        assert [blocks, largest] == [bytes_ / 2 if name in narrow else bytes_ for bytes_ in wide]
    g, d = parameter_bytes(n.generator), parameter_bytes(n.discriminator)
    packed = 1 if penalties == "same" else 2
    gathers = 2 * sum(whole(half, "generator")[:2]) + (2 * packed + 3) * sum(whole(half, "discriminator")[:2])
    assert traffic(half, Share(4, 2, 2), Layout(True, False)) == pytest.approx(3 / 4 * (gathers + g + packed * d))


def test_one_gpu_sends_nothing(tiny_config: Config) -> None:
    result = plan(tiny_config, H100, 1)
    assert [c["step"]["seconds"]["communication"] for c in result["layouts"]] == [0, 0]
    assert not any(c["sharded"] for c in result["layouts"])


def test_eight_network_links_stand_in_beyond_one_machine() -> None:
    assert bandwidth(H100, 8) == 450e9
    assert bandwidth(H100, 16) == 400e9
    assert bandwidth(GPUS["rtx4090"], 16) == 32e9


def test_a_whole_run_is_steps_times_seconds() -> None:
    runs = column(plan(recipe("cat-b2"), H100, 8, price=2.0))
    step, whole, paper = runs["step"]["seconds"]["total"], runs["runs"]["recipe"], runs["runs"]["paper"]
    assert whole["steps"] == 50_000
    assert whole["hours"] == pytest.approx(50_000 * step / 3600)
    assert whole["cost"] == pytest.approx(2.0 * 8 * whole["hours"])
    assert paper["images"] == 20 * EPOCH
    assert paper["epochs"] == 20


def test_without_a_price_there_is_no_cost_and_small_recipes_have_no_paper(tiny_config: Config) -> None:
    runs = column(plan(tiny_config, H100, 1))["runs"]
    assert list(runs) == ["recipe"]
    assert runs["recipe"]["cost"] is None


# -- memory ------------------------------------------------------------------------------------------------------------


def test_the_largest_micro_batch_fits_and_one_more_does_not() -> None:
    config, gpus = recipe("cat-h2"), 8
    result = plan(config, H100, gpus)
    most = column(result)["memory"]["largest_micro_batch"]
    assert not column(result)["memory"]["fits"]
    assert 1 < most < 64
    usable = USABLE * 80 * 2**30
    totals = [
        sum(peak(Networks(config), Share(8, 64, m), Layout(False, False))["bytes"].values()) for m in (most, most + 1)
    ]
    assert totals[0] <= usable < totals[1]


def test_what_fits_nowhere_is_said_to(tiny_config: Config) -> None:
    result = plan(tiny_config, replace(H100, memory=1e-6), 1)
    found = column(result)["memory"]
    assert (found["fits"], found["largest_micro_batch"], result["fastest"]) == (False, 0, None)


def test_the_fastest_way_fits_and_divides_what_does_not_into_equal_passes() -> None:
    result = plan(recipe("cat-h2"), H100, 8)
    fastest = result["fastest"]
    assert (fastest["sharded"], fastest["checkpointing"], fastest["micro_batch"]) == (False, False, 32)
    assert fastest["memory"]["fits"]
    fitting = [c["step"]["seconds"]["total"] for c in result["layouts"] if c["memory"]["fits"]]
    assert fastest["step"]["seconds"]["total"] <= min(fitting)


@pytest.mark.parametrize(("most", "even_ones"), [(64, 64), (59, 32), (31, 22), (1, 1)])
def test_passes_are_even(most: int, even_ones: int) -> None:
    assert even(64, most) == even_ones


def test_micro_batches_keep_less_and_generate_twice(tiny_config: Config) -> None:
    whole, parts = (plan(from_dict({"training": {"micro_batch": n}}, tiny_config), H100, 2) for n in (0, 2))
    assert (whole["reuses_fakes"], parts["reuses_fakes"]) == (True, False)
    assert parts["gmacs_per_sample"] > whole["gmacs_per_sample"]
    assert column(parts)["memory"]["bytes"]["activations"] < column(whole)["memory"]["bytes"]["activations"]


def test_alignment_brings_the_encoder_along(tiny_config: Config) -> None:
    aligned = from_dict({"discriminator": {"representation_dim": 768}}, tiny_config)
    with_encoder, without = plan(aligned, H100, 1), plan(tiny_config, H100, 1)
    assert column(with_encoder)["memory"]["bytes"]["encoder"] == pytest.approx(86.6e6 * 4, rel=0.001)
    assert column(without)["memory"]["bytes"]["encoder"] == 0
    assert with_encoder["gmacs_per_sample"] > without["gmacs_per_sample"] + 20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"gpus": 3}, r"--gpus is 3: must divide the batch \(8\)"),
        ({"gpus": 0}, "--gpus is 0"),
        ({"gpus": 16}, "--gpus is 16"),
        ({"gpus": 2, "utilisation": 0.0}, "--utilisation is 0: must be above 0"),
        ({"gpus": 2, "utilisation": 40.0}, "--utilisation is 40: must be above 0 and at most 1"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tiny_config: Config, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan(tiny_config, H100, **arguments)


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("NVIDIA H100 80GB HBM3", "float32", 67.0),
        ("NVIDIA A100-SXM4-40GB", "bfloat16", 312.0),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
        ("NVIDIA H200", "bfloat16", 989.4),
        ("Tesla K80", "float32", 0.0),
    ],
)
def test_a_gpu_is_known_by_its_full_name(device: str, precision: str, peak: float) -> None:
    assert datasheet_peak(device, precision) == peak
