"""The design against the paper's parameter counts and costs, on networks without weights."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import pytest

from catgan.accounting.compute import compute, training_passes
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.recipes import recipe

Computed = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize(("name", "millions"), [("cat-b2", 133.1), ("cat-m2", 260.6), ("cat-h2", 959.8)])
def test_generators_have_the_papers_parameters(computed: Computed, name: str, millions: float) -> None:
    assert computed(name)["generator"]["parameters"] / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(("name", "gmacs"), [("cat-b2", 23.0), ("cat-m2", 46.0), ("cat-h2", 166.9)])
def test_generators_have_the_papers_cost(computed: Computed, name: str, gmacs: float) -> None:
    assert computed(name)["generator"]["gmacs"] == pytest.approx(gmacs, abs=0.05)


def test_the_discriminator_has_the_papers_parameters_and_cost(computed: Computed) -> None:
    d = computed("cat-b2")["discriminator"]
    assert d["parameters"] / 1e6 == pytest.approx(96.1, abs=0.05)
    assert d["gmacs"] == pytest.approx(30.5, abs=0.05)
    assert d["representation_gmacs"] == pytest.approx(1.9, abs=0.05)


def test_token_counts_are_those_of_imagenet_256(computed: Computed) -> None:
    c = computed("cat-b2")
    assert c["generator"]["tokens"] == 256
    assert c["discriminator"]["tokens_per_scale"] == [4, 16, 64, 256]
    assert (c["discriminator"]["cls_tokens"], c["discriminator"]["tokens"]) == (4, 344)


def test_counting_allocates_no_weights() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    compute(recipe("cat-h2"))  # 3.8 GB of float32 weights
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_a_mask_saves_attention_and_nothing_else(tiny_config: Config) -> None:
    masked = compute(tiny_config)["discriminator"]
    joint = compute(from_dict({"discriminator": {"aggregated": True}}, tiny_config))["discriminator"]
    spans, width, depth = (2, 5, 17), 16, 2
    saved = 2 * width * depth * (sum(spans) ** 2 - sum(n * n for n in spans)) / 1e9
    assert joint["gmacs"] - masked["gmacs"] == pytest.approx(saved, rel=1e-9)
    assert joint["parameters"] == masked["parameters"]


def test_without_a_representation_head_nothing_is_spent_on_alignment(tiny_config: Config) -> None:
    c = compute(tiny_config)
    assert c["discriminator"]["representation_gmacs"] == 0.0
    assert c["training"]["auxiliary_gmacs"] == 0.0


@pytest.mark.parametrize(
    ("change", "generator", "discriminator"),
    [
        ({}, 3.0, 10.5),
        ({"training": {"reuse_fakes": False}}, 4.0, 10.5),
        ({"training": {"micro_batch": 3}}, 4.0, 10.5),
        ({"training": {"micro_batch": 8}}, 3.0, 10.5),
        ({"objective": {"fresh_z": True}}, 4.0, 10.5),
        ({"objective": {"penalty_fraction": 1.0}}, 3.0, 15.0),
        ({"objective": {"penalty": 0}}, 3.0, 9.0),
    ],
)
def test_training_passes(tiny_config: Config, change: dict[str, Any], generator: float, discriminator: float) -> None:
    passes = training_passes(from_dict(change, tiny_config))
    assert passes == {"generator": generator, "discriminator": discriminator}


@pytest.mark.parametrize(("processes", "passes"), [(1, 4.0), (2, 3.0), (4, 3.0)])
def test_fakes_are_reused_where_each_process_has_its_share_in_one_pass(
    tiny_config: Config, processes: int, passes: float
) -> None:
    """A batch of 8 in passes of 4: two passes of one process, one of each of two."""
    config = from_dict({"training": {"micro_batch": 4}}, tiny_config)
    counted, once = compute(config, processes), compute(tiny_config)
    t, g = counted["training"], counted["generator"]["gmacs"]
    assert t["generator_passes"] == passes
    assert t["gmacs_per_sample"] == pytest.approx(once["training"]["gmacs_per_sample"] + (passes - 3) * g)
    assert t["paper_gmacs_per_sample"] == once["training"]["paper_gmacs_per_sample"]


def test_totals_are_passes_times_costs(computed: Computed) -> None:
    c = computed("cat-b2")
    g, d, t = c["generator"]["gmacs"], c["discriminator"]["gmacs"], c["training"]
    alignment = 3 * 1.886 + 23.16
    assert t["auxiliary_gmacs"] == pytest.approx(alignment, abs=0.01)
    assert t["gmacs_per_sample"] == pytest.approx(3 * g + 10.5 * d + alignment, abs=0.01)
    assert t["paper_gmacs_per_sample"] == pytest.approx(4 * g + 10.5 * d + alignment, abs=0.01)
    assert t["samples"] == 50_000 * 512
    assert t["total_gmacs"] == pytest.approx(t["gmacs_per_sample"] * t["samples"])
