"""The numbers of each step, which wait on the device until somebody wants to see them."""

from __future__ import annotations

import math

import torch

from catgan.errors import UserError
from catgan.training.graph import Metrics


class DivergedError(UserError):
    """A loss or a gradient is not finite."""

    exit_code = 1
    raised_by_all = True


class Scalars:
    """Metrics of the steps since the last reading: a step costs no wait for the device, a reading costs one."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Metrics]] = []

    def add(self, step: int, metrics: Metrics) -> None:
        self.waiting.append((step, metrics))

    def read(self) -> dict[str, float]:
        """The newest step's, vectors as name/0, name/1, ... Raises DivergedError if any since then is not finite."""
        scalars: dict[str, float] = {}
        for step, metrics in self.waiting:
            numbers = torch.cat([m.detach().double().reshape(-1) for m in metrics.values()]).tolist()
            names = [n if m.ndim == 0 else f"{n}/{k}" for n, m in metrics.items() for k in range(max(1, m.numel()))]
            scalars = dict(zip(names, numbers, strict=True))
            for name, number in scalars.items():
                if not math.isfinite(number):
                    raise DivergedError(f"step {step}: {name} is {number}")
        self.waiting = self.waiting[-1:]
        return scalars
