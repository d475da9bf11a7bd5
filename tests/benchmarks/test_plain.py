"""The obvious computation and the one that trains: the same losses, gradients and weights.

This is what any faster way of computing a step is held to.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from against_plain import check_same, full_penalties
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.objective import default_objective
from catgan.training.step import Step
from catgan.training.target import ComputedTarget
from plain import PlainStep

CPU = torch.device("cpu")
NO_DATA: Any = None  # images are given, not read
Gradients = list[dict[str, Tensor]]

CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "fakes made twice": {"training": {"reuse_fakes": False}},
    "blocks recomputed": {"training": {"recompute": True}},
    "fresh z": {"objective": {"fresh_z": True}},
    "aggregated": {"discriminator": {"aggregated": True}},
    "mapped classes": {"discriminator": {"class_mapping": True}},
    "noise per scale": {"objective": {"penalty_noise": "per_scale"}},
    "noise per scale, no augmentation": {
        "objective": {"penalty_noise": "per_scale"},
        "augment": {"color": 0, "translation": 0, "cutout": 0, "flip": 0},
    },
    "no augmentation": {"augment": {"color": 0, "translation": 0, "cutout": 0, "flip": 0}},
    "colour alone": {"augment": {"color": 1.0, "translation": 0, "cutout": 0, "flip": 0}},
    "odd cutout, far shifts": {"augment": {"translation": 0.5, "cutout": 0.4}},
    "all penalised": {"objective": {"penalty_fraction": 1.0}},
    "three of eight penalised": {"objective": {"penalty_fraction": 0.4}},
    "no penalty": {"objective": {"penalty": 0}},
    "penalty falls": {"objective": {"penalty": 0.8, "penalty_end": 0.1, "penalty_anneal": 2, "penalty_eps": 0.02}},
    "no consistency": {"objective": {"consistency": 0}},
    "weights of consistency": {"objective": {"consistency_weights": [0.2, 3.0], "detach_anchor": True}},
    "one scale": {"sample": {"scales": [8]}, "discriminator": {"patches": [2]}},
    "patches differ": {"discriminator": {"patches": [1, 2, 4]}, "generator": {"patch": 4}},
    "filter": {"sample": {"down": "bicubic", "channels": 3}},
    "unconditional": {"sample": {"classes": 1}},
    "heads": {"generator": {"heads": 4, "depth": 6}, "discriminator": {"heads": 1, "width": 24}},
    "optimiser": {"optimizer": {"clip": 0.05, "weight_decay": 0.1, "beta1": 0.5, "ema_warmup": 0, "ema_half_life": 3}},
    "batch of one": {"training": {"batch": 1}},
    "long scale": {  # beyond what attention computes by plain matrix products
        "sample": {"size": 16, "scales": [4, 8, 16]},
        "augment": {"flip": 0.0},
    },
}


class Encoder(nn.Module):
    """Patches of 4 pixels of 16x16 images: 4x4 tokens of 6 features."""

    dim, identity = 6, "patches"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = nn.Conv2d(3, self.dim, 4, 4).requires_grad_(False)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.layer(images)
        return patches.mean((2, 3)), patches.movedim(1, -1)


def data(config: Config, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    s = config.sample
    x = torch.rand(config.training.batch, s.channels, s.size, s.size, dtype=dtype) * 2 - 1
    return x, torch.randint(s.classes, (len(x),))


def pair(config: Config, dtype: torch.dtype, recompute: bool = False, encoder: Any = None) -> tuple[Step, Any]:
    """A step and a straightforward one, each on weights of its own: equal ones, none at zero, so that all terms count."""
    sides = []
    for _ in range(2):
        step = Step(
            config.validate(), default_objective(config), CPU, encoder and ComputedTarget(encoder, config, NO_DATA)
        )
        generator = torch.Generator().manual_seed(3)
        for network in (step.generator, step.discriminator):
            for p in network.parameters():
                p.data.add_(0.3 * torch.randn(p.shape, generator=generator))
        step.ema.load_state_dict(step.generator.state_dict())
        for network in (step.generator, step.discriminator, step.ema):
            network.to(dtype)
        sides.append(step)
    step, other = sides
    return step, PlainStep(config, other.generator, other.discriminator, other.ema, recompute, encoder)


def watch(side: Any, networks: list[nn.Module]) -> Gradients:
    """Fills with the gradients, clipped as they are, of every update of either network."""
    found: Gradients = []
    for name, network in zip(("generator", "discriminator"), networks, strict=True):

        def keep(*_: Any, name: str = name, network: nn.Module = network) -> None:
            found.append({f"{name}.{n}": p.grad.clone() for n, p in network.named_parameters() if p.grad is not None})

        side.optimizers[name].register_step_pre_hook(keep)
    return found


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor], relative: float, absolute: float) -> None:
    """Tensors of the same name, by their length. The bias of D's head has no gradient but rounding: logits are paired."""
    assert a.keys() == b.keys()
    for name, expected in b.items():
        error = (a[name] - expected).double().norm().item()
        assert error <= relative * expected.double().norm().item() + absolute, name


def state(networks: list[nn.Module]) -> dict[str, Tensor]:
    return {f"{i}.{n}": t for i, network in enumerate(networks) for n, t in network.state_dict().items()}


def assert_same(config: Config, recompute: bool = False, encoder: Any = None, images: Tensor | None = None) -> None:
    """Two iterations in float64: losses, gradients, weights, averages and style means."""
    step, plain = pair(config, torch.float64, recompute, encoder)
    ours = [step.generator, step.discriminator]
    theirs = [plain.weights["generator"], plain.weights["discriminator"]]
    our_gradients, their_gradients = watch(step, ours), watch(plain, theirs)
    x, y = data(config, torch.float64)
    for i in range(2):
        a, b = step.run(i, x, y, images), plain.run(i, x, y, images)
        assert {n for n in a if not n.startswith("logits/") and n != "generator/consistency_share"} == b.keys()
        assert_close({n: a[n] for n in b}, b, 1e-9, 0)
    assert len(our_gradients) == len(their_gradients) == 4
    for a, b in zip(our_gradients, their_gradients, strict=True):
        assert_close(a, b, 1e-9, 1e-14)
    assert_close(state([*ours, step.ema]), state([*theirs, plain.ema]), 1e-9, 1e-11)


@pytest.mark.parametrize("name", CHANGES)
def test_a_step_is_the_obvious_computation(tiny_config: Config, name: str) -> None:
    assert_same(from_dict(CHANGES[name], tiny_config))


@pytest.mark.parametrize("name", ["as it is", "all penalised"])
def test_recomputed_blocks_change_nothing(tiny_config: Config, name: str) -> None:
    assert_same(from_dict(CHANGES[name], tiny_config), recompute=True)


@pytest.mark.parametrize("patch", [2, 4])
def test_so_is_the_alignment_with_an_encoder(tiny_config: Config, patch: int) -> None:
    change = {
        "discriminator": {"representation_dim": 6, "patches": [2, 2, patch]},
        "encoder": {"path": "unused", "size": 16},
        "objective": {"representation": 0.7},
    }
    images = torch.randint(0, 256, (8, 3, 20, 20), dtype=torch.uint8)
    assert_same(from_dict(change, tiny_config), False, Encoder().double(), images)


@pytest.mark.parametrize(
    ("name", "digits"), [("no penalty", 1e-4), ("as it is", 5e-3), ("all penalised", 5e-3), ("long scale", 5e-3)]
)
def test_in_float32_they_differ_by_rounding(tiny_config: Config, name: str, digits: float) -> None:
    """Penalties square differences of logits divided by 0.01: rounding leaves fewer digits of them."""
    config = from_dict(CHANGES[name], tiny_config)
    step, plain = pair(config, torch.float32)
    ours = watch(step, [step.generator, step.discriminator])
    theirs = watch(plain, [plain.weights["generator"], plain.weights["discriminator"]])
    x, y = data(config, torch.float32)
    a, b = step.run(0, x, y), plain.run(0, x, y)
    assert_close({n: a[n] for n in b}, b, digits, 0)
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine, other, digits, 1e-6)


# -- held to it before anything is timed -------------------------------------------------------------------------------


def test_losses_are_compared_in_both_settings(tiny_config: Config) -> None:
    x, y = data(tiny_config, torch.float32)
    assert check_same(PlainStep, tiny_config, x, y, recompute=False) < 1e-9
    assert check_same(PlainStep, full_penalties(tiny_config), x, y, recompute=True) < 1e-9


def test_another_computation_is_found_out(tiny_config: Config) -> None:
    class Wrong(PlainStep):
        def gamma(self, step: int) -> float:
            return super().gamma(step) * 1.001

    with pytest.raises(AssertionError, match="differ in discriminator/"):
        check_same(Wrong, tiny_config, *data(tiny_config, torch.float32), recompute=False)
