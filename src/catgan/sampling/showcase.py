"""Pictures of what a model makes: sheets of samples that nobody selected, and stages side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from catgan.images import grid, labelled, tile_zoom

CLASSES, SAMPLES, STRIPS = 10, 40, 4  # at most


def chosen(classes: int) -> tuple[list[int], list[int]]:
    """Which classes, spread evenly, and which seeds the page of a published model shows: the first ones."""
    numbers = sorted({round(i * (classes - 1) / (CLASSES - 1)) for i in range(CLASSES)})
    return numbers, list(range(16 if len(numbers) == 1 else min(10, SAMPLES // len(numbers))))


def sheet(samples: np.ndarray, names: Sequence[str], seeds: Sequence[int], labels: bool = True) -> Image.Image:
    """uint8 (classes * seeds, S, S, C), a row per class; those of one class make a square. labels: classes and seeds."""
    one = len(names) == 1
    across = math.isqrt(len(seeds) - 1) + 1 if one else len(seeds)
    rows = [list(samples[i : i + across]) for i in range(0, len(samples), across)]
    picture = grid(rows, tile_zoom(samples.shape[1]))
    return labelled(picture, [str(s) for s in seeds], names) if labels and not one else picture


def strips(stages: np.ndarray, names: Sequence[str], labels: bool = True) -> Image.Image:
    """uint8 (K + 1, n, S, S, C), a row per sample, h_0..h_K from left to right."""
    picture = grid([list(stages[:, i]) for i in range(len(names))], tile_zoom(stages.shape[2]))
    return labelled(picture, [f"h_{k}" for k in range(len(stages))], names) if labels else picture
