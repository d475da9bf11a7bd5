"""Penalties of a step in bfloat16 against those of one in float32: same weights, samples and noise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.discriminator import DiscriminatorBlock
from catgan.objective import default_objective
from catgan.recipes import recipe
from catgan.system.devices import tensor_float32
from catgan.training.step import Step

SCALES = 4
PENALTIES = ("r1", "r2")


def configuration(**changes: Any) -> Config:
    """The scales and latents of cat-b2 with small networks: twelve samples, three of them under the penalties."""
    small = {
        "sample": {"classes": 4, "vae": None},
        "generator": {"depth": 4, "width": 32, "heads": 2},
        "discriminator": {"depth": 4, "width": 32, "heads": 2, "head_dim": 64, "representation_dim": 0},
        "objective": {"representation": 0.0, "penalty_fraction": 0.25},
        "encoder": {"path": None},
        "training": {"batch": 12, "precision": "float32"},
    }
    return from_dict(changes, from_dict(small, recipe("cat-b2"))).validate()


def latents(count: int, seed: int) -> Tensor:
    """Smooth and rough ones, of deviation 0.9."""
    draw = torch.Generator().manual_seed(seed)
    octaves = [torch.randn(count, 4, s, s, generator=draw) for s in (4, 8, 16, 32)]
    x = torch.stack([F.interpolate(o, size=32, mode="bilinear") for o in octaves]).sum(0)
    return 0.9 * x / x.std()


@cache
def trained() -> dict[str, Tensor]:
    """Weights of a discriminator that has learned to tell latents from noise, without penalties: its slopes have grown."""
    torch.manual_seed(0)
    step = Step(configuration(), default_objective(configuration()), torch.device("cpu"))
    optimizer, y = torch.optim.AdamW(step.judging, lr=1e-3, betas=(0.0, 0.99)), torch.arange(12) % 4
    for i in range(30):
        x = torch.cat([latents(6, i), 0.9 * torch.randn(6, 4, 32, 32)])
        logits = step.discriminator(step.pyramid(x), y)
        optimizer.zero_grad()
        F.softplus(logits[6:] - logits[:6]).mean().backward()
        optimizer.step()
    return step.discriminator.state_dict()


def penalties(weights: dict[str, Tensor] | None, **changes: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """R1 and R2 per scale (K + 1,), and the gradient of each one's mean in the discriminator's blocks, flat."""
    config = configuration(**changes)
    step = Step(config, default_objective(config), torch.device("cpu"))
    if weights is not None:
        step.discriminator.load_state_dict(weights)
    (part,) = step.micro_batches("discriminator", 0, latents(12, 1000), torch.arange(12) % 4)
    h = 0.9 * torch.randn(SCALES, 12, 4, 32, 32, generator=torch.Generator().manual_seed(1))  # the very same fakes
    state = step.discriminator_state(part, h)
    values, gradients = {}, {}
    for term in step.objective.discriminator:
        if term.name in PENALTIES:
            value = term.function(state)
            blocks = list(step.discriminator.blocks.parameters())
            gradient = torch.autograd.grad(value.mean(), blocks, retain_graph=True)
            values[term.name], gradients[term.name] = value.detach().mean(0), torch.cat([g.flatten() for g in gradient])
    return values, gradients


BFLOAT16 = {"precision": "bfloat16"}
WEIGHTS = {"untrained": lambda: None, "trained": trained}


@pytest.mark.parametrize("stage", WEIGHTS)
@pytest.mark.parametrize("more", [{}, {"recompute": True}])
def test_penalties_under_bfloat16_are_those_of_float32(stage: str, more: dict[str, Any]) -> None:
    """Within 1 % per scale, their gradients within 1 %: sums of other lengths are rounded in another order."""
    weights = WEIGHTS[stage]()
    exact, exact_gradients = penalties(weights)
    found, gradients = penalties(weights, training=BFLOAT16 | more)
    for name in PENALTIES:
        print(stage, name, exact[name], found[name] / exact[name] - 1)
        torch.testing.assert_close(found[name], exact[name], rtol=0.01, atol=0)
        error = (gradients[name] - exact_gradients[name]).norm() / exact_gradients[name].norm()
        print(error)
        assert error < 0.01


@pytest.mark.parametrize("stage", WEIGHTS)
def test_judged_in_bfloat16_too_they_are_mostly_rounding(stage: str) -> None:
    """Untrained, ten times too large and more; in either case their gradients point elsewhere."""
    weights = WEIGHTS[stage]()
    exact, exact_gradients = penalties(weights)
    found, gradients = penalties(weights, training=BFLOAT16, objective={"penalty_precision": "same"})
    for name in PENALTIES:
        print(stage, name, exact[name], found[name] / exact[name])
        cosine = F.cosine_similarity(gradients[name], exact_gradients[name], dim=0)
        print(cosine)
