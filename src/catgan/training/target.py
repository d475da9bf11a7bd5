"""What the discriminator's representation head is trained towards: a frozen encoder's features of real images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from catgan.config import WITHOUT_REPRESENTATION, Config
from catgan.data import Dataset, raw_images
from catgan.data.features import StoredFeatures
from catgan.encoders import Encoder, load_dino
from catgan.errors import UserError, require
from catgan.images import from_bytes
from catgan.nn.layers import at_least_float32
from catgan.pyramid import resize


class RepresentationTarget(Protocol):
    """Features for the real samples of a step: read on the CPU ahead of it, made into tokens on the device in it."""

    identity: str  # a digest of the encoder's weights: a run is resumed only with equal ones

    def read(self, rows: np.ndarray, seed: int, step: int, first: int) -> Tensor:
        """What `tokens` needs of these rows of the data, (n, ...), given what the dataset's `batch` was given."""
        ...

    def tokens(self, read: Tensor, dtype: torch.dtype, register: Callable[[Tensor], Tensor]) -> Tensor:
        """Features (n, 1 + T_K, D), [cls] first. dtype: of the samples. register: moves and mirrors images like them."""
        ...


class ComputedTarget:
    """Runs the encoder in every step on the raw images, moved and mirrored as their samples."""

    def __init__(self, encoder: Encoder, config: Config, dataset: Dataset) -> None:
        self.encoder, self.dataset, self.identity = encoder, dataset, encoder.identity
        self.size, self.grid = config.encoder.size, patches_per_side(config)
        self.sample_size = config.sample.size

    def read(self, rows: np.ndarray, seed: int, step: int, first: int) -> Tensor:
        """Raw images, uint8 (n, 3, P, P)."""
        return raw_images(self.dataset, rows, seed, step, first)

    def tokens(self, read: Tensor, dtype: torch.dtype, register: Callable[[Tensor], Tensor]) -> Tensor:
        seen = from_bytes(read, dtype)
        if seen.shape[-1] == self.sample_size:  # the sample itself, moved by whole pixels
            seen = resize(register(seen), self.size, "bicubic", "bicubic")
        else:
            seen = register(resize(seen, self.size, "bicubic", "bicubic"))
        return as_tokens(*self.encoder.encode(seen), self.grid)


class StoredTarget:
    """Reads the features that `catgan prepare --encoder` stored beside the data."""

    def __init__(self, config: Config, dataset: Dataset) -> None:
        """Raises UserError for data without features, or with those of images of another size."""
        self.features, self.grid = StoredFeatures(dataset), patches_per_side(config)
        self.identity, stored, size = self.features.identity, self.features.size, config.encoder.size
        require(stored == size, "encoder.size", size, f"{stored}, of the features")

    def read(self, rows: np.ndarray, seed: int, step: int, first: int) -> Tensor:
        """Stored features, float16 (n, 1 + m^2, D)."""
        return self.features.read(rows)

    def tokens(self, read: Tensor, dtype: torch.dtype, register: Callable[[Tensor], Tensor]) -> Tensor:
        return as_tokens(*self.features.split(read), self.grid)


def patches_per_side(config: Config) -> int:
    """Patches along one side of the finest scale: T_K is its square."""
    return config.sample.scales[-1] // config.discriminator.patches[-1]


def as_tokens(cls: Tensor, patches: Tensor, grid: int) -> Tensor:
    """An encoder's class token (B, D) and patch tokens (B, n, n, D) as tokens (B, 1 + grid^2, D), [cls] first.

    Patch tokens are resized bicubically where n is not grid.
    """
    resized = resize(at_least_float32(patches).movedim(-1, 1), grid, "bicubic", "bicubic")
    return torch.cat([at_least_float32(cls).unsqueeze(1), resized.flatten(2).mT], dim=1)


def representation_target(
    config: Config, dataset: Dataset, device: torch.device, encoder: Encoder | None = None, resume: bool = False
) -> RepresentationTarget | None:
    """The target that a run needs, ready on the device, or None if it needs none.

    encoder: one that the caller brings, in place of the DINOv2 that config.encoder names. Raises UserError if the data
    has no raw images, if there is no encoder or it does not fit the representation head, and for a new run with a head
    that nothing would train.
    """
    weight, dim = config.objective.representation, config.discriminator.representation_dim
    if not weight:
        require(
            resume or not dim,
            "discriminator.representation_dim",
            dim,
            "0 where objective.representation is 0, since nothing trains that head",
        )
        return None
    if config.encoder.cached and encoder is None:
        stored = StoredTarget(config, dataset)
        check_head(dim, stored.features.dim)
        return stored
    raw_images(dataset, np.zeros(1, dtype=np.int64), 0, 0)
    if encoder is None and config.encoder.path is None:
        raise UserError(
            f"objective.representation is {weight:g}, but encoder.path is not set: give a DINOv2, such as "
            f"--encoder.path facebook/dinov2-base, or train without: {WITHOUT_REPRESENTATION}"
        )
    if encoder is None:
        encoder = dino = load_dino(str(config.encoder.path), config.encoder.size, device)
        if device.type == "cuda" and config.compiles(device.type):
            dino.compile()
    check_head(dim, encoder.dim)
    return ComputedTarget(encoder, config, dataset)


def check_head(dim: int, encoder_dim: int) -> None:
    """Raise UserError unless the head predicts as many channels as the encoder has."""
    require(dim == encoder_dim, "discriminator.representation_dim", dim, f"that of the encoder, {encoder_dim}")
