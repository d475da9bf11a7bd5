"""The running average of the generator's weights, from which samples are drawn."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from catgan.training.parallel import local_tensor

Network = TypeVar("Network", bound=nn.Module)


def frozen_copy(network: Network) -> Network:
    """A frozen copy of the network to hold its average."""
    return copy.deepcopy(network).requires_grad_(False).eval()


def tensors(network: nn.Module) -> list[Tensor]:
    """Its parameters and buffers, those that checkpoints leave out too."""
    return [*network.parameters(), *network.buffers()]


def decay(step: int, half_life: float, warmup: float) -> float:
    """Weight of the old average in the update after `step` steps (1, 2, ...).

    The half-life counts steps. While the run is young it is at most `warmup` * step: an average of a fixed length
    would mostly remember the untrained start. warmup = 0 keeps it fixed.
    """
    if warmup:
        half_life = min(half_life, max(warmup * step, 1e-8))
    return float(0.5 ** (1.0 / half_life))


@torch.no_grad()
def update(average: nn.Module, network: nn.Module, weight: float | Tensor) -> None:
    """average = weight * average + (1 - weight) * network, for parameters; buffers are copied."""
    old, new = ([local_tensor(p) for p in n.parameters()] for n in (average, network))
    if isinstance(weight, Tensor):
        share = 1.0 - weight
        for a, b in zip(old, new, strict=True):
            a.lerp_(b, share)
    else:
        torch._foreach_lerp_(old, new, 1.0 - weight)
    for a, b in zip(average.buffers(), network.buffers(), strict=True):
        a.copy_(b)
