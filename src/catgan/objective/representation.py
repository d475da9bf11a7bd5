"""Representation alignment: the discriminator learns to predict a frozen encoder's features of real images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from catgan.nn.layers import at_least_float32
from catgan.pyramid import resize


def representation(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - cosine similarity: that of [cls] plus the mean over patches, per sample.

    predicted, target: (B, 1 + T, D), [cls] first. Returns (B,), in [0, 4].
    """
    distance = 1 - F.cosine_similarity(at_least_float32(predicted), at_least_float32(target), dim=-1)
    return distance[:, 0] + distance[:, 1:].mean(1)


def as_tokens(cls: Tensor, patches: Tensor, grid: int) -> Tensor:
    """An encoder's class token (B, D) and patch tokens (B, n, n, D) as tokens (B, 1 + grid^2, D), [cls] first.

    Patch tokens are resized bicubically where n is not grid.
    """
    resized = resize(at_least_float32(patches).movedim(-1, 1), grid, "bicubic", "bicubic")
    return torch.cat([at_least_float32(cls).unsqueeze(1), resized.flatten(2).mT], dim=1)
