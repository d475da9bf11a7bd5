"""Straight lines in style space."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def walk(ends: Tensor, frames: int) -> Tensor:
    """Styles on the lines between successive ends: (n, d) to ((n - 1) * frames, d), both ends of each line included."""
    t = torch.linspace(0, 1, frames, dtype=ends.dtype, device=ends.device)[:, None]
    return torch.cat([torch.lerp(a, b, t) for a, b in pairwise(ends)])
