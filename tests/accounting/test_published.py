"""Closed forms against the counter on real networks, and the paper's comparison of models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from catgan.accounting.compute import gmacs
from catgan.accounting.published import (
    DECODER,
    EPOCH,
    REPORTED,
    Model,
    account,
    beside_paper,
    blocks,
    counted_model,
    dinov2_b,
    imf_xl2,
)
from catgan.discriminator import Discriminator
from catgan.generator import Generator
from catgan.recipes import RECIPES

Computed = Callable[[str], dict[str, Any]]


def forward_cost(build: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> float:
    """GMACs of a generator (shape of z) or discriminator (shapes of the pyramid), without weights."""
    with torch.device("meta"):
        network, y = build(), torch.empty(1, dtype=torch.int64)
        inputs = [torch.empty(shape) for shape in shapes]
        if isinstance(network, Generator):
            return gmacs(lambda: network(*inputs, y, all_stages=True))
        return gmacs(lambda: network(inputs, y))


@pytest.mark.parametrize(("depth", "width", "hidden"), [(4, 48, 128), (8, 96, 256)])
def test_the_generators_cost_has_a_closed_form(depth: int, width: int, hidden: int) -> None:
    counted = forward_cost(lambda: Generator(depth=depth, width=width, heads=4), (1, 64))
    style = 2 * 64 * width + width * width
    modulations = (6 * depth + 2 * 4) * width * width
    outputs = 4 * 256 * width * 16
    assert counted == pytest.approx(blocks(depth, width, hidden, 256) + (style + modulations + outputs) / 1e9, rel=1e-9)


def test_the_discriminators_cost_has_a_closed_form() -> None:
    counted = forward_cost(
        lambda: Discriminator(scales=(16, 32), patches=(2, 2), depth=2, width=48, heads=4, head_dim=64),
        (1, 4, 16, 16),
        (1, 4, 32, 32),
    )
    masked = sum(blocks(2, 48, 128, tokens) for tokens in (65, 257))  # a block-diagonal mask: as if each ran alone
    embedding, head = (64 + 256) * 16 * 48, 2 * 48 * 64
    assert counted == pytest.approx(masked + (embedding + head) / 1e9, rel=1e-9)


def test_gat_costs_what_follows_from_its_published_sizes(computed: Computed) -> None:
    """28 blocks of width 1152 in both networks; scale and gate twice per block, a scale per output; one grid of tokens."""
    c, width = computed("gat-xl2"), 1152
    g = (4 * 28 + 4) * width**2 + (2 * 64 + width) * width + 4 * 256 * 16 * width
    d = 256 * 64 * width + width * 2048 + 2 * 2048**2  # patches of four stacked images, logit, class mapping
    assert c["generator"]["gmacs"] == pytest.approx(blocks(28, width, 3072, 256) + g / 1e9, rel=1e-9)
    assert c["discriminator"]["gmacs"] == pytest.approx(blocks(28, width, 3072, 257) + d / 1e9, rel=1e-9)


def test_a_gat_step_is_four_passes_of_the_generator_and_fifteen_of_the_discriminator(computed: Computed) -> None:
    assert counted_model("GAT-XL/2", computed("gat-xl2")).passes == {"F_G": 4, "F_D": 15}
    d = computed("gat-b2")["discriminator"]
    assert (d["tokens_per_scale"], d["cls_tokens"]) == ([256], 1)


@pytest.mark.slow  # importing transformers
def test_dinov2s_closed_form_agrees_with_its_implementation() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        encoder = transformers.Dinov2Model(transformers.Dinov2Config(image_size=224))
        counted = gmacs(lambda: encoder(torch.empty(1, 3, 224, 224)))
    assert dinov2_b() == pytest.approx(counted, rel=1e-9)


def test_dinov2_costs_what_the_paper_adds() -> None:
    assert dinov2_b() == pytest.approx(23, rel=0.01)


def test_imfs_joint_path_runs_eight_blocks_more() -> None:
    imf = imf_xl2()
    assert imf.sampling == pytest.approx(174.6, rel=0.005)
    assert imf.forward["F_uv"] / imf.forward["F_u"] == pytest.approx(56 / 48, rel=1e-3)
    assert imf_xl2(joint=False).per_sample == pytest.approx(7 * imf.sampling)


def test_a_models_total_is_passes_times_costs_times_images() -> None:
    model = Model("toy", {"F_G": 2.0, "F_D": 5.0}, {"F_G": 4, "F_D": 1}, 0.5, 2.0, 10.0, "here")
    assert model.formula == "4 F_G + F_D + 0.5"
    assert (model.per_sample, model.total) == (13.5, 135.0)


@pytest.fixture(scope="module")
def result(computed: Computed) -> dict[str, Any]:
    return account({name: computed(name) for name in RECIPES})


def test_cat_needs_over_16_times_less_than_imf_and_about_half_of_gat(result: dict[str, Any]) -> None:
    times = {m["name"]: m["times_cat_h2"] for m in result["models"]}
    assert times["iMF-XL/2"] > 16
    assert times["GAT-XL/2"] == pytest.approx(2.2, abs=0.1)
    assert times["CAT-H/2"] == 1
    assert 0.8 < times["CAT-H/2, fakes reused"] < 0.9


def test_models_and_recipes_agree(result: dict[str, Any]) -> None:
    models = {m["name"]: m for m in result["models"]}
    t = result["recipes"]["cat-h2"]["training"]
    assert models["CAT-H/2"]["gmacs_per_sample"] == pytest.approx(t["paper_gmacs_per_sample"])
    assert models["CAT-H/2, fakes reused"]["gmacs_per_sample"] == pytest.approx(t["gmacs_per_sample"])
    assert models["CAT-H/2, fakes reused"]["total_gmacs"] == pytest.approx(t["total_gmacs"])
    assert models["GAT-XL/2"]["images"] / EPOCH == pytest.approx(60, rel=1e-3)
    assert all(m["source"] for m in models.values())


def test_every_figure_of_the_paper_is_near_ours(computed: Computed) -> None:
    figures = beside_paper({name: computed(name) for name in RECIPES})
    assert {f["figure"] for f in figures if f["relation"] == "="} >= {"sampling CAT-H/2, GMACs", "epochs of CAT-M/2"}
    for f in figures:
        assert f["difference_percent"] == pytest.approx(100 * (f["ours"] - f["paper"]) / f["paper"])
        allowed = {"=": 0.5, "~": 3.0, ">": 10.0}[f["relation"]]
        assert abs(f["difference_percent"]) < allowed, f["figure"]
        assert f["where"].startswith("arXiv:2605.26449")


def test_what_is_published_of_others_names_its_source_and_agrees_with_what_is_counted(result: dict[str, Any]) -> None:
    assert [r["fid"] for r in result["reported"]] == sorted((r.fid for r in REPORTED), reverse=True)
    assert all(r.source.startswith("arXiv:") and " table" in r.source for r in REPORTED)
    assert {r.space for r in REPORTED} == {"latent", "pixel"}
    counted = {m["name"]: m for m in result["models"]}
    for r in REPORTED:
        if r.name in counted:
            assert r.gmacs == pytest.approx(counted[r.name]["sampling_gmacs"], rel=0.005)
            assert r.epochs == pytest.approx(counted[r.name]["epochs"], rel=0.002)
    drifting = next(r for r in REPORTED if r.name == "Drifting L/16")
    assert drifting.gmacs == pytest.approx(blocks(24, 1024, 2731, 256 + 16), rel=0.05), "24 blocks on 272 tokens"
    assert result["decoder_gmacs"] == DECODER
