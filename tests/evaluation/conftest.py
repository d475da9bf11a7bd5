"""A feature space that costs nothing, an untrained pipeline, and real digits for the evaluation's tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from catgan.config import Config
from catgan.data.datasets import Images
from catgan.evaluation.sources import DatasetImages
from catgan.networks import build_generator
from catgan.sampling.pipeline import CATPipeline


class Projection:
    """A fixed random projection of the pixels; its logits are the first features."""

    name, names_classes = "classifier", True

    def __init__(self, pixels: int, dim: int = 6, channels: int = 1, classes: int = 3) -> None:
        self.channels, self.dim, self.classes = channels, dim, classes
        self.matrix = torch.randn(pixels, dim, generator=torch.Generator().manual_seed(1))
        self.seen: list[int] = []  # sizes of batches

    def identity(self) -> str:
        return f"projection {tuple(self.matrix.shape)}"

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        self.seen.append(len(images))
        x = images.flatten(1).float() / 255 @ self.matrix
        return x, x[:, : self.classes] if self.classes else None


@pytest.fixture(scope="session")
def projection() -> type[Projection]:
    return Projection


@pytest.fixture(scope="session")
def noise() -> Callable[..., DatasetImages]:
    """Random 4 x 4 grey images of three classes."""

    def make(count: int, seed: int = 0, classes: int = 3) -> DatasetImages:
        pixels = np.random.default_rng(seed).integers(256, size=(count, 1, 4, 4))
        images = (pixels / 127.5 - 1).astype(np.float32)
        return DatasetImages(Images(images, np.arange(count) % classes, tuple("abc"[:classes])), "noise")

    return make


@pytest.fixture(scope="session")
def few_digits(some_digits: Callable[[int], Images]) -> Images:
    """150 real digits of three classes."""
    return some_digits(150)


@pytest.fixture
def pipe(tiny_config: Config) -> CATPipeline:
    """An untrained generator of three classes, 8 x 8 grey."""
    return CATPipeline(build_generator(tiny_config), tiny_config, ("0", "1", "2"), step=7)
