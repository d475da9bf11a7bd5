"""Shares of attention between scales: against the formula written out, and on cases known beforehand."""

from __future__ import annotations

import dataclasses
import io
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from catgan.config import Config
from catgan.data.datasets import Dataset, Images
from catgan.data.latents import Latents
from catgan.discriminator import Discriminator
from catgan.errors import UserError
from catgan.evaluation.attention import CrossScaleAttention, attention_mass, diagnose_attention
from catgan.networks import build_discriminator, build_generator
from catgan.nn.layers import Attention
from catgan.recipes import gat
from catgan.report.plots import plot_attention
from catgan.sampling.pipeline import CATPipeline

SHORT, LONG = (2, 4, 8), (4, 8, 16)  # 24 tokens, and 87: both kernels of `attend`


def network(scales: tuple[int, ...] = SHORT, aggregated: bool = True) -> Discriminator:
    """Two layers whose attention is far from uniform and different in each."""
    made = Discriminator(
        channels=1, classes=3, scales=scales, patches=(2,) * len(scales), depth=2, width=16, heads=2, head_dim=8,
        aggregated=aggregated,
    )  # fmt: skip
    for module in made.modules():
        if isinstance(module, Attention):
            torch.nn.init.uniform_(module.query_norm.weight, 1, 3)
            torch.nn.init.uniform_(module.key_norm.weight, 1, 3)
            torch.nn.init.normal_(module.qkv.bias)
    return made.requires_grad_(False)


def pyramid(scales: tuple[int, ...] = SHORT, samples: int = 3) -> list[Tensor]:
    return [torch.randn(samples, 1, size, size) for size in scales]


def turned(x: Tensor, scales: tuple[int, ...]) -> Tensor:
    """Queries or keys (B, T, heads, 8) turned by row and column of their own grid, as complex numbers; [cls] is not."""
    angles = []
    for size in scales:
        rows, columns = torch.meshgrid(torch.arange(size // 2), torch.arange(size // 2), indexing="ij")
        frequencies = torch.tensor([1.0, 1e4**-0.5])
        grid = torch.cat([rows[..., None] * frequencies, columns[..., None] * frequencies], dim=-1)
        angles += [torch.zeros(1, 4), grid.reshape(-1, 4)]
    z = torch.complex(x[..., :4], x[..., 4:]) * torch.exp(1j * torch.cat(angles))[:, None]
    return torch.cat([z.real, z.imag], dim=-1)


def dense_mass(d: Discriminator, images: list[Tensor], scales: tuple[int, ...]) -> Tensor:
    """(B, layers, K + 1, K + 1) of an aggregated network, with whole attention matrices from the raw weights."""
    parts = [d.tokens(k, x) for k, x in enumerate(images)]
    x = torch.cat(parts, dim=1)
    rotary = torch.cat([d.get_buffer(f"rotary_{k}") for k in range(len(images))], dim=1)
    ends = np.cumsum([0] + [p.shape[1] for p in parts]).tolist()
    layers = []
    for n in range(len(d.blocks)):
        weights = {k.removeprefix(f"blocks.{n}."): v for k, v in d.state_dict().items()}
        normed = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weights["attention_norm.weight"]
        both = {}
        for i, name in enumerate(("query", "key")):
            rows = slice(16 * i, 16 * i + 16)
            y = normed @ weights["attention.qkv.weight"][rows].T + weights["attention.qkv.bias"][rows]
            y = y.reshape(*y.shape[:2], 2, 8)
            y = y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weights[f"attention.{name}_norm.weight"]
            both[name] = turned(y, scales)
        a = (torch.einsum("bqhc,bkhc->bhqk", both["query"], both["key"]) / 8**0.5).softmax(-1)
        cells = [
            [a[:, :, i:i_end, j:j_end].sum(3).mean((1, 2)) for j, j_end in pairwise(ends)]
            for i, i_end in pairwise(ends)
        ]
        layers.append(torch.stack([torch.stack(row, dim=1) for row in cells], dim=1))
        x = d.blocks[n](x, rotary, (x.shape[1],))
    return torch.stack(layers, dim=1)


@pytest.mark.parametrize("scales", [SHORT, LONG])
def test_aggregated_attention_is_what_whole_matrices_from_the_raw_weights_say(scales: tuple[int, ...]) -> None:
    d, images = network(scales), pyramid(scales)
    mass = attention_mass(d, images)
    assert mass.shape == (3, 2, 3, 3)
    assert torch.allclose(mass, dense_mass(d, images, scales).double(), rtol=0, atol=1e-6)
    assert (mass[:, 0] - mass[:, 1]).abs().max() > 0.01, "the layers must differ for the comparison to mean something"


@pytest.mark.parametrize("aggregated", [False, True])
@pytest.mark.parametrize("scales", [SHORT, LONG, (4,), (2, 4, 8, 16)])
def test_rows_sum_to_one(scales: tuple[int, ...], aggregated: bool) -> None:
    mass = attention_mass(network(scales, aggregated), pyramid(scales))
    assert torch.allclose(mass.sum(-1), torch.ones(()).double(), rtol=0, atol=1e-12)
    assert mass.min() >= 0


@pytest.mark.parametrize("scales", [SHORT, LONG, (4,)])
def test_a_scale_wise_discriminator_has_exactly_the_identity(scales: tuple[int, ...]) -> None:
    mass = attention_mass(network(scales, aggregated=False), pyramid(scales))
    assert torch.equal(mass, torch.eye(len(scales), dtype=torch.float64).expand_as(mass))


def test_an_aggregated_discriminator_looks_at_other_scales() -> None:
    mass = attention_mass(network(), pyramid())
    assert (mass > 0).all()
    assert (mass.diagonal(dim1=-2, dim2=-1) < 0.99).all()


def test_one_scale_keeps_all_its_attention() -> None:
    assert torch.equal(attention_mass(network((8,)), pyramid((8,))), torch.ones(3, 2, 1, 1, dtype=torch.float64))


def test_attention_without_queries_falls_on_scales_in_proportion_to_their_tokens() -> None:
    d = network(LONG)
    for module in d.modules():
        if isinstance(module, Attention):
            module.qkv.weight[:16] = 0
            module.qkv.bias[:16] = 0
    expected = torch.tensor([5, 17, 65]).double() / 87
    assert torch.allclose(attention_mass(d, pyramid(LONG)), expected.expand(3, 2, 3, 3), rtol=0, atol=1e-6)


def test_more_scales_than_channels_per_head_can_be_told_apart() -> None:
    d = Discriminator(
        channels=1, classes=1, scales=(2, 4, 6, 8, 10), patches=(2,) * 5, depth=1, width=8, heads=2, head_dim=8,
        aggregated=True,
    )  # fmt: skip
    mass = attention_mass(d, pyramid((2, 4, 6, 8, 10)))
    assert mass.shape == (3, 1, 5, 5)
    assert (mass > 0).all()


def test_autocast_does_not_coarsen_the_measure() -> None:
    d, images = network(), pyramid()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mass = attention_mass(d, images)
    assert torch.equal(mass, attention_mass(d, images))


def test_measuring_leaves_the_network_as_it_was() -> None:
    d, images = network(), pyramid()
    before = d(images, torch.zeros(3, dtype=torch.int64))
    attention_mass(d, images)
    assert torch.equal(d(images, torch.zeros(3, dtype=torch.int64)), before)
    assert not any(module._forward_pre_hooks for module in d.modules())


@pytest.fixture
def aggregated_config(tiny_config: Config) -> Config:
    return dataclasses.replace(
        tiny_config, discriminator=dataclasses.replace(tiny_config.discriminator, aggregated=True)
    )


def diagnose(config: Config, dataset: Dataset | None, samples: int, batch: int) -> CrossScaleAttention:
    torch.manual_seed(0)
    pipe = CATPipeline(build_generator(config), config, ("a", "b", "c"), step=7)
    return diagnose_attention(pipe, build_discriminator(config), dataset, samples, batch)


def latents(count: int) -> Latents:
    draw = np.random.default_rng(0)
    return Latents(draw.normal(0, 5, (count, 2, 8, 8)).astype(np.float32), np.arange(count) % 3, ("a", "b", "c"))


def test_a_diagnosis_is_the_mean_over_its_samples_whatever_the_batch(aggregated_config: Config) -> None:
    whole, parts = (diagnose(aggregated_config, latents(10), 10, batch) for batch in (10, 3))
    for source in ("generated", "real"):
        assert torch.allclose(whole.mass[source], parts.mass[source], rtol=0, atol=1e-6)
    torch.manual_seed(0)
    pipe = CATPipeline(build_generator(aggregated_config), aggregated_config, ("a", "b", "c"))
    discriminator = build_discriminator(aggregated_config)
    h = pipe([i % 3 for i in range(10)], range(10), stages=True).stages
    assert h is not None
    direct = attention_mass(discriminator, pipe.pyramid(h)).mean(0)
    assert torch.allclose(whole.mass["generated"], direct, rtol=0, atol=1e-6)
    assert (whole.mass["real"] - direct).abs().max() > 1e-4, "real samples must not be the generated ones"


def test_real_samples_are_spread_evenly_over_the_dataset(aggregated_config: Config) -> None:
    images = np.random.default_rng(0).normal(size=(9, 1, 8, 8)).astype(np.float32)
    labels = np.zeros(9, dtype=np.int64)
    some = diagnose(aggregated_config, Images(images, labels, ("a",)), 3, 2)
    chosen = diagnose(aggregated_config, Images(images[[0, 3, 6]], labels[:3], ("a",)), 50, 50)
    assert torch.allclose(some.mass["real"], chosen.mass["real"], rtol=0, atol=1e-6)
    assert (some.protocol["real_samples"], chosen.protocol["real_samples"], chosen.protocol["samples"]) == (3, 3, 50)


def test_a_scale_wise_diagnosis_is_exactly_the_identity_after_averaging(tiny_config: Config) -> None:
    result = diagnose(tiny_config, latents(11), 7, 3)
    for source in ("generated", "real"):
        assert torch.equal(result.mass[source], torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
        assert result.off_diagonal(source) == 0


def test_without_data_there_are_generated_samples_only(tiny_config: Config) -> None:
    result = diagnose(tiny_config, None, 4, 4)
    assert list(result.mass) == ["generated"]
    assert result.protocol["real_samples"] == 0


def example(layers: int = 2, scales: int = 2) -> CrossScaleAttention:
    mass = torch.full((layers, scales, scales), 1 / scales, dtype=torch.float64)
    return CrossScaleAttention({"generated": mass}, [1 + 4**k for k in range(scales)], {"aggregated": True})


def test_the_off_diagonal_share_counts_scales_and_layers_alike() -> None:
    mass = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[1.0, 0.0], [0.2, 0.8]]], dtype=torch.float64)
    result = dataclasses.replace(example(), mass={"real": mass})
    assert result.per_layer("real") == pytest.approx([0.3, 0.1])
    assert result.off_diagonal("real") == pytest.approx(0.2)
    written = json.loads(json.dumps(result.to_dict()))
    assert written["real"]["layers"] == mass.tolist()
    assert written["real"]["mean"] == [pytest.approx([0.95, 0.05]), pytest.approx([0.35, 0.65])]
    assert written["real"]["off_diagonal"] == pytest.approx(0.2)
    assert written["uniform"] == pytest.approx([2 / 7, 5 / 7])
    assert "mean         0.200" in result.table()


def test_uniform_attention_would_leave_as_much_as_the_table_says() -> None:
    result = example(1, 3)
    uniform = dataclasses.replace(result, mass={"real": torch.tensor([[result.uniform()] * 3], dtype=torch.float64)})
    lines = [line.split() for line in uniform.table().splitlines()]
    assert ["mean", "0.667"] in lines
    assert ["uniform", "0.667"] in lines


def test_many_layers_wrap_into_rows() -> None:
    sizes = []
    for layers in (4, 7):
        with Image.open(io.BytesIO(plot_attention(example(layers)))) as picture:
            sizes.append(picture.size)
    (one_row, low), (two_rows, high) = sizes
    assert one_row == two_rows  # seven are four and three
    assert low < high


def test_noise_levels_have_no_attention_between_scales(tiny_config: Config) -> None:
    config = gat(tiny_config)
    with pytest.raises(UserError, match="noise_levels: its discriminator has one grid"):
        diagnose_attention(CATPipeline(build_generator(config), config, ()), build_discriminator(config), None, 2)
