"""Scales chosen from the data: those between which resolution takes steps of equal size.

The floor of delta of a resolution, |x - r_K(r_s(x))| / |x|, is what a picture loses by it: nearly all at one pixel, nothing at
full size. Scale k of K + 1 is where the loss is nearest to (K - k) / (K + 1), so that each scale shows an equal part more
than the one before. The paper sets its scales by hand, and reports no search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from catgan.config import Config
from catgan.data import Dataset
from catgan.errors import UserError
from catgan.evaluation.alignment import alignment
from catgan.pyramid import Pyramid

BATCH = 50
NUMBERS = 2**25  # of a batch at all sizes, at most; each is in memory several times
SAMPLES = 1000  # real samples that are looked at, evenly spread over the data
WORK = 2**31  # numbers of these at all sizes, at most: of large pictures fewer are looked at, BATCH at least


def auto_scales(config: Config, dataset: Dataset) -> tuple[int, ...]:
    """As many scales as the configuration has, the last one the size of the samples.

    Each is divisible by its patch size, so that the networks stay as they are. Raises UserError where there are not
    enough such sizes.
    """
    size, patches = dataset.shape[-1], config.discriminator.patches[: len(config.sample.scales)]
    candidates = [s for s in range(1, size) if any(s % p == 0 for p in patches[:-1])]
    return chosen(floors(dataset, candidates, config.sample.down, config.sample.up), size, patches)


def floors(dataset: Dataset, sizes: Sequence[int], down: str = "area", up: str = "bilinear") -> dict[int, float]:
    """The floor of delta of each size below that of the samples: means over real samples, in [0, 1] or a little above."""
    if not sizes:
        return {}
    each = (len(sizes) + 1) * math.prod(dataset.shape)  # numbers of a sample at all sizes
    count, total = min(SAMPLES, len(dataset), max(BATCH, WORK // each)), torch.zeros(len(sizes))
    rows, pyramid = np.arange(count) * len(dataset) // count, Pyramid((*sizes, dataset.shape[-1]), down, up)
    batch = max(1, min(BATCH, NUMBERS // each))
    for first in range(0, count, batch):
        x, _ = dataset.batch(rows[first : first + batch], 0, 0, first)
        total += alignment(x.expand(len(sizes) + 1, *x.shape), pyramid)["floor"].sum(0)
    return dict(zip(sizes, (total / count).tolist(), strict=True))


def chosen(floor: Mapping[int, float], size: int, patches: Sequence[int]) -> tuple[int, ...]:
    """Increasing sizes, one per patch size and divisible by it, whose floors are nearest to equal steps; then `size`.

    Nearest: by the sum of squares.
    """
    last = len(patches) - 1
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}  # by the scale that they end at
    for k, patch in enumerate(patches[:-1]):
        target, longer = (last - k) / (last + 1), {}
        for s in (s for s in floor if s % patch == 0):
            before = min((found for end, found in best.items() if end < s), default=(math.inf, ()))
            longer[s] = (before[0] + (floor[s] - target) ** 2, (*before[1], s))
        best = longer
    cost, scales = min(best.values(), default=(math.inf, ()))
    if not math.isfinite(cost):
        raise UserError(
            f"there are no {last} scales below {size} that discriminator.patches ({', '.join(map(str, patches))}) divide: "
            "use fewer scales or smaller patches"
        )
    return (*scales, size)
