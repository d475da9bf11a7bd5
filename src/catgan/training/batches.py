"""The real samples of each step: a pure function of configuration, data, step and position in the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from catgan.config import Config
from catgan.data import Dataset, rows
from catgan.training.target import RepresentationTarget


class Batch(NamedTuple):
    """Real samples of one step: a process's share of the batch."""

    x: Tensor  # (B, C, S, S)
    y: Tensor  # (B,) classes
    encoded: Tensor | None  # (B, ...) what the representation target reads for them, if there is one

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(change(self.x), change(self.y), None if self.encoded is None else change(self.encoded))

    def first(self, count: int) -> Batch:
        return self.each(lambda t: t[:count])

    def to(self, device: torch.device) -> Batch:
        return self.each(lambda t: t.to(device, non_blocking=True))


class Batches:
    """Reads the batches of one run, or one process's share of each."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        target: RepresentationTarget | None,
        pinned: bool,
        share: tuple[int, int] | None = None,
    ) -> None:
        """target: what reads more for each sample. pinned: in memory from which copies to a GPU need not be waited for.
        share: where this process's samples of a batch begin and end."""
        self.config, self.dataset, self.target, self.pinned = config, dataset, target, pinned
        self.first, self.end = share or (0, config.training.batch)
        self.origin = (0, 0)  # a step and its first sample's number, from which on the batch has its present size

    def position(self, step: int) -> int:
        """How many samples of the data the steps before this one have read."""
        return self.origin[1] + (step - self.origin[0]) * self.config.training.batch

    def read(self, step: int) -> Batch:
        """The batch of a step, on the CPU. Called from several threads."""
        seed, first = self.config.training.seed, self.first
        chosen = rows(seed, self.position(step) + first, self.end - first, len(self.dataset))
        x, y = self.dataset.batch(chosen, seed, step, first)
        if self.config.sample.classes == 1:
            y = torch.zeros_like(y)
        encoded = None if self.target is None else self.target.read(chosen, seed, step, first)
        batch = Batch(x, y, encoded)
        # Grey pictures that an encoder sees are one channel three times over, which pinned memory has to hold as three.
        return batch.each(lambda t: t.contiguous().pin_memory()) if self.pinned else batch
