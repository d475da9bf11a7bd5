"""The real samples of each step: a pure function of configuration, data and step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from catgan.config import Config
from catgan.data import Dataset, raw_images, rows
from catgan.data.features import StoredFeatures
from catgan.encoders import Encoder


class Batch(NamedTuple):
    """Real samples of one step."""

    x: Tensor  # (B, C, S, S)
    y: Tensor  # (B,) classes
    images: Tensor | None  # (B, 3, P, P), uint8: raw images, where an encoder sees them; or what it makes of them

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(change(self.x), change(self.y), None if self.images is None else change(self.images))

    def to(self, device: torch.device, count: int | None = None) -> Batch:
        """The first `count` samples, or all, on a device."""
        return self.each(lambda t: t[:count].to(device, non_blocking=True))


class Batches:
    """Reads the batches of one run."""

    def __init__(self, config: Config, dataset: Dataset, encoder: Encoder | None, pinned: bool) -> None:
        """encoder: what raw images or stored features are read for. pinned: in memory from which copies to a GPU need
        not be waited for."""
        self.config, self.dataset, self.encoder, self.pinned = config, dataset, encoder, pinned

    def read(self, step: int) -> Batch:
        """The batch of a step, on the CPU. Called from several threads."""
        seed, count = self.config.training.seed, self.config.training.batch
        chosen = rows(seed, step * count, count, len(self.dataset))
        x, y = self.dataset.batch(chosen, seed, step)
        if self.config.sample.classes == 1:
            y = torch.zeros_like(y)
        images = None
        if isinstance(self.encoder, StoredFeatures):
            images = self.encoder.read(chosen)
        elif self.encoder is not None:
            images = raw_images(self.dataset, chosen, seed, step)
        batch = Batch(x, y, images)
        return batch.each(Tensor.pin_memory) if self.pinned else batch
