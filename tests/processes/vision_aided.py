"""The vision-aided heads on two fixed convolutions that stand for a pretrained network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catgan.objective import VISION, VisionHeads


class Frozen:
    """Feature maps (B, 6, S / 2, S / 2) and (B, 12, S / 4, S / 4), and the mean of the latter."""

    channels, dim, identity = (6, 12), 12, "fixed"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(7)
        self.weights = [torch.randn(6, 3, 2, 2, generator=generator), torch.randn(12, 6, 2, 2, generator=generator)]

    def maps(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        fine, coarse = (w.to(images.dtype) for w in self.weights)
        maps = [F.conv2d(images, fine, stride=2).relu()]
        maps.append(F.conv2d(maps[0], coarse, stride=2).relu())
        return maps, maps[1].mean((2, 3))


def build_heads(classes: int) -> dict[str, nn.Module]:
    """The heads by their name, with weights that depend on nothing else."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        return {VISION: VisionHeads(Frozen(), classes, width=8)}
