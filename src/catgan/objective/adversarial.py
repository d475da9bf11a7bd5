"""Relativistic pairing loss, per scale."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def relativistic(better: Tensor, worse: Tensor) -> Tensor:
    """f(d(better) - d(worse)) with f(t) = softplus(-t), per sample and scale: (B, K + 1) to (B, K + 1).

    The discriminator calls it with (real, fake), the generator with (fake, real).
    """
    return F.softplus(worse - better)
