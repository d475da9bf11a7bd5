"""What the vision-aided loss costs, against transformers' own network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from catgan.accounting.compute import compute, gmacs
from catgan.accounting.memory import Layout, Networks, Share, state
from catgan.accounting.vision import NETWORK_PASSES, Trunk, heads_of, kept, trunk
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.recipes import recipe

SMALL = Trunk("small", (1, 2, 1, 1), (16, 32, 64, 128), 2, 64)


def network(sizes: Trunk) -> Any:
    from transformers import ConvNextV2Config, ConvNextV2Model

    config = ConvNextV2Config(
        depths=list(sizes.depths), hidden_sizes=list(sizes.widths), patch_size=sizes.patch, image_size=sizes.size
    )
    return ConvNextV2Model(config).eval().requires_grad_(False)


def base() -> Trunk:
    found = trunk(recipe("cat-b2-pixels"))
    assert found is not None
    return found


@pytest.mark.parametrize("sizes", [SMALL, base()], ids=["small", "base"])
def test_the_closed_form_counts_what_the_network_computes(sizes: Trunk) -> None:
    with torch.device("meta"):
        model = network(sizes)
        counted = gmacs(lambda: model(pixel_values=torch.empty(1, 3, sizes.size, sizes.size)))
    assert sizes.gmacs == pytest.approx(counted, rel=1e-6)
    assert sizes.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_the_network_keeps_is_what_autograd_saves(tiny_config: Config, precision: str) -> None:
    """On the CPU, which widens less under autocast than CUDA."""
    model, stored = network(SMALL), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def bytes_for(samples: int) -> int:
        kept_alive: dict[int, Tensor] = {}

        def pack(t: Tensor) -> Tensor:
            if t.untyped_storage().data_ptr() not in weights:
                kept_alive[t.untyped_storage().data_ptr()] = t
            return t

        x = torch.randn(samples, 3, SMALL.size, SMALL.size, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):  # noqa: SIM117
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                stored["out"] = model(pixel_values=x, output_hidden_states=True)
        return sum(t.untyped_storage().nbytes() for t in kept_alive.values())

    measured = (bytes_for(3) - bytes_for(1)) / 2
    config = from_dict({"vision": {"path": "any", "size": 64}, "training": {"precision": precision}}, tiny_config)
    expected = kept(config) * SMALL.elements / base_elements(config)
    ratio = expected / measured
    assert 0.8 < ratio < 1.1 if precision == "float32" else 0.9 < ratio < 1.6


def base_elements(config: Config) -> int:
    found = trunk(config)
    assert found is not None
    return found.elements


def test_compute_and_plan_have_it(tiny_config: Config) -> None:
    without = compute(tiny_config)["training"]
    config = from_dict({"vision": {"path": "rotations", "width": 8}}, tiny_config)
    found, sizes = compute(config)["training"], trunk(config)
    assert sizes is not None
    assert sizes.size == 16  # samples have 8 pixels
    assert found["vision_gmacs"] > NETWORK_PASSES * sizes.gmacs
    assert found["gmacs_per_sample"] == pytest.approx(without["gmacs_per_sample"] + found["vision_gmacs"])
    heads = heads_of(config)
    assert heads is not None
    share, layout = Share(1, 8, 8), Layout(sharded=False, checkpointing=False)
    before, after = (state(Networks(c), share, layout, "discriminator") for c in (tiny_config, config))
    own = 4 * sum(p.numel() for p in heads.parameters())
    assert after["gradients"] - before["gradients"] == own
    assert after["encoder"] - before["encoder"] == 4 * sizes.parameters


def test_the_recipe_in_pixels_spends_a_sixth_on_it() -> None:
    t = compute(recipe("cat-b2-pixels"))["training"]
    assert t["vision_gmacs"] == pytest.approx(84.4, abs=0.1)
    assert t["auxiliary_gmacs"] == pytest.approx(t["alignment_gmacs"] + t["vision_gmacs"])
    assert t["vision_gmacs"] / t["gmacs_per_sample"] == pytest.approx(1 / 6, abs=0.01)
