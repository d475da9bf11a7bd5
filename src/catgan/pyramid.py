"""r_k: resizing between full size and the resolutions of the scales (paper 3.1, x_k = r_k(h_k))."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def resize(x: Tensor, size: int, down: str = "area", up: str = "bilinear") -> Tensor:
    """Resize (B, C, S, S) to (B, C, size, size): filter `down` towards fewer pixels, `up` towards more."""
    if x.shape[-1] == size:
        return x
    mode = down if size < x.shape[-1] else up
    if mode in ("area", "nearest"):
        return F.interpolate(x, size=(size, size), mode=mode)
    return F.interpolate(x, size=(size, size), mode=mode, align_corners=False, antialias=size < x.shape[-1])


class Pyramid:
    """The operators r_0..r_K of a list of scales."""

    def __init__(self, scales: Sequence[int], down: str = "area", up: str = "bilinear") -> None:
        self.scales, self.down, self.up = tuple(scales), down, up

    def __call__(self, h: Tensor) -> list[Tensor]:
        """Stage outputs h (K + 1, B, C, S, S) to the discriminator's view [r_0(h_0), ..., r_K(h_K)].

        A single sample x (B, C, S, S) stands for all stages at once, as real samples do.
        """
        stages = [h] * len(self.scales) if h.ndim == 4 else list(h)
        return [resize(stage, size, self.down, self.up) for stage, size in zip(stages, self.scales, strict=True)]

    def enlarge(self, x: Tensor) -> Tensor:
        """r_K: back to full size."""
        return resize(x, self.scales[-1], self.down, self.up)
