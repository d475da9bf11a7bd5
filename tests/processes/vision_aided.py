"""A vision-aided loss in one file: a small head on a frozen network's features is trained with the discriminator.

The network here is a fixed convolution that stands for a pretrained one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catgan.objective import Objective, StepState, Term, relativistic

NAME = "vision"


class Frozen:
    """Features (B, 12) of the finest view; no module, so that its weights are nobody's parameters."""

    def __init__(self, channels: int) -> None:
        self.weight = torch.randn(12, channels, 4, 4, generator=torch.Generator().manual_seed(7))

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.to(x.dtype), stride=4).relu().mean((2, 3))


class Head(nn.Module):
    """A logit (B, 1) of a pyramid and its class."""

    def __init__(self, features: Frozen, classes: int) -> None:
        super().__init__()
        self.features = features
        self.hidden = nn.Linear(12, 8)
        self.class_embedding = nn.Embedding(classes, 8)

    def forward(self, pyramid: Sequence[Tensor], y: Tensor) -> Tensor:
        hidden: Tensor = self.hidden(self.features(pyramid[-1]))
        return (F.silu(hidden) * self.class_embedding(y)).sum(1, keepdim=True)


def discriminator_term(state: StepState) -> Tensor:
    return relativistic(state.real_heads[NAME], state.fake_heads[NAME])


def generator_term(state: StepState) -> Tensor:
    return relativistic(state.fake_heads[NAME], state.real_heads[NAME])


def vision_aided(objective: Objective, weight: float = 0.5) -> Objective:
    """The objective with the loss in both networks."""
    return objective.with_term("discriminator", Term(NAME, weight, discriminator_term)).with_term(
        "generator", Term(NAME, weight, generator_term)
    )


def build_heads(channels: int, classes: int) -> dict[str, nn.Module]:
    """The head by its name, with weights that depend on nothing else."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return {NAME: Head(Frozen(channels), classes)}
