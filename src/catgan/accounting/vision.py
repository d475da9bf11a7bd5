"""What the vision-aided loss costs: its frozen network by closed form, its heads counted as they are.

The network is counted as a ConvNeXtV2-Base whatever vision.path names, but for the small one of `rotations`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from catgan.config import Config
from catgan.encoders.rotations import DEPTHS, GRID, ROTATIONS, WIDTHS, seen_size
from catgan.objective import VisionHeads

# Numbers that a block keeps per position and channel for its input's gradient; and of those, in float32.
KEPT, WIDENED = 11, 5
# Forward passes' worth per sample and step: without gradient of real samples and fakes, then of real samples; and of fakes
# with the gradient at the picture, which is half of a backward pass.
NETWORK_PASSES = 1 + 1 + 1 + 2
HEAD_PASSES = 3 * 2 + 1 + 2  # as `training_passes` has it for the discriminator


@dataclass(frozen=True)
class Trunk:
    """Sizes of a ConvNeXtV2."""

    name: str
    depths: tuple[int, ...]  # blocks of each stage
    widths: tuple[int, ...]  # its channels
    patch: int  # pixels of a side that the first layer reduces to one position
    size: int  # pixels of a side of its input

    def side(self, stage: int) -> int:
        """Positions along a side of its map; a size that is too small has one."""
        return max(1, self.size // self.patch >> stage)

    def positions(self, stage: int) -> int:
        return self.side(stage) ** 2

    @property
    def gmacs(self) -> float:
        """Of a forward pass."""
        total = self.positions(0) * 3 * self.patch**2 * self.widths[0]
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            total += depth * self.positions(stage) * (49 * width + 8 * width**2)
            if stage:
                total += self.positions(stage) * 4 * self.widths[stage - 1] * width
        return total / 1e9

    @property
    def parameters(self) -> int:
        first, last = self.widths[0], self.widths[-1]
        total = 3 * self.patch**2 * first + 3 * first + 2 * last
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            # depthwise, norm, wide and response norm, narrow
            total += depth * (50 * width + 2 * width + 4 * width * (width + 1) + 8 * width + width * (4 * width + 1))
            if stage:
                total += self.widths[stage - 1] * (4 * width + 2) + width
        return total

    @property
    def elements(self) -> int:
        """Positions times channels, of all blocks together."""
        return sum(d * self.positions(k) * w for k, (d, w) in enumerate(zip(self.depths, self.widths, strict=True)))


def trunk(config: Config) -> Trunk | None:
    """The frozen network of a configuration, or None."""
    if config.vision.path is None:
        return None
    size = seen_size(config)
    if config.vision.path == ROTATIONS:
        return Trunk("a ConvNeXtV2 of 0.2 M weights", DEPTHS, WIDTHS, size // GRID, size)
    return Trunk("a ConvNeXtV2-Base", (3, 3, 27, 3), (128, 256, 512, 1024), 4, size)


class Sizes:
    """A `VisionEncoder` that computes nothing: maps of the right sizes."""

    identity = ""

    def __init__(self, network: Trunk, stages: tuple[int, ...]) -> None:
        # Another network than the one that is counted may have more stages.
        self.stages = [min(stage, len(network.depths)) - 1 for stage in stages]
        self.network, self.channels = network, tuple(network.widths[stage] for stage in self.stages)
        self.dim = network.widths[-1]

    def maps(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        n = self.network
        sides = map(n.side, self.stages)
        maps = [images.new_empty(len(images), c, s, s) for c, s in zip(self.channels, sides, strict=True)]
        return maps, images.new_empty(len(images), self.dim)


def heads_of(config: Config) -> VisionHeads | None:
    """The heads of a configuration, on the meta device, or None."""
    network = trunk(config)
    if network is None:
        return None
    with torch.device("meta"):
        return VisionHeads(Sizes(network, config.vision.stages), config.sample.classes, config.vision.width)


def kept_by_heads(config: Config) -> float:
    """Bytes per judged sample that the heads keep: normalised maps, and their hidden channels before and after ReLU."""
    network, v = trunk(config), config.vision
    if network is None:
        return 0.0
    sizes = Sizes(network, v.stages)
    stages = zip(sizes.stages, sizes.channels, strict=True)
    return float(sum(4 * network.positions(stage) * (channels + 2 * v.width) for stage, channels in stages))


def kept(config: Config) -> float:
    """Bytes per fake that the network keeps from the forward to the backward pass of the generator's step."""
    network = trunk(config)
    if network is None:
        return 0.0
    narrow = 2 if config.training.precision == "bfloat16" else 4
    return float(network.elements * ((KEPT - WIDENED) * narrow + WIDENED * 4))
