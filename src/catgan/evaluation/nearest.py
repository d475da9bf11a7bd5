"""Samples beside the images of the reference that lie nearest to them: are they copies, and of what?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from catgan.evaluation.collect import kept_row
from catgan.evaluation.distances import Distances, centred, distances
from catgan.evaluation.sources import ImageSource, with_channels
from catgan.images import captioned, grid, labelled, tile_zoom, to_picture

SHOWN = 4  # images of the reference beside a sample


@dataclass(frozen=True)
class Nearest:
    """The samples that lie nearest to an image of the reference, smallest ratio first."""

    samples: tuple[int, ...]  # their numbers
    ratios: tuple[float, ...]
    images: tuple[tuple[int, ...], ...]  # numbers of the images nearest to each, nearest first
    among: int  # images of the reference that were looked at
    closer: float  # share of all samples that are no farther from their nearest image than that from its nearest other
    closer_real: float  # the same share of the reference's images, each left out of it in turn

    def to_dict(self) -> dict[str, Any]:
        shown = zip(self.samples, self.ratios, self.images, strict=True)
        rows = [{"sample": i, "ratio": ratio, "images": list(images)} for i, ratio, images in shown]
        return {"closer": self.closer, "closer_real": self.closer_real, "among": self.among, "samples": rows}


def nearest_samples(found: Distances, samples: Tensor, images: Tensor, count: int, of: int) -> Nearest:
    """The `count` samples of smallest ratio, or all where there are fewer.

    found: the `nearest_distances` of samples (n, d) and images (m, d): features, those of m evenly spread images of `of`.
    """
    chosen = found.ratio.argsort(stable=True)[:count]
    a, b = centred(samples, images)
    near = distances(a[chosen], b).topk(min(SHOWN, len(b)), largest=False).indices
    return Nearest(
        tuple(chosen.tolist()),
        tuple(found.ratio[chosen].tolist()),
        tuple(tuple(kept_row(i, of, len(images)) for i in row) for row in near.tolist()),
        len(images),
        1 - found.farther,
        1 - found.real_farther,
    )


# -- the sheet ---------------------------------------------------------------------------------------------------------


def sheet(found: Nearest, samples: ImageSource, real: ImageSource, features: str) -> Image.Image:
    """A row for each sample: the sample, then the images nearest to it; left of it, its number and ratio.

    features: the name of their feature space, for the words below.
    """
    made = {i: one(samples, i) for i in sorted(found.samples)}  # in order, as files are read
    pictures = {i: one(real, i) for i in sorted({i for row in found.images for i in row})}
    rows = [[made[i], *(pictures[k] for k in row)] for i, row in zip(found.samples, found.images, strict=True)]
    size = max(max(tile.shape[1:]) for row in rows for tile in row)
    channels = max(tile.shape[0] for row in rows for tile in row)
    picture = grid([[square(tile, size, channels) for tile in row] for row in rows], tile_zoom(size))
    columns = ["sample", *("nearest", "second", "third", "fourth")[: len(rows[0]) - 1]]
    named = [f"{i}: {ratio:.2f}" for i, ratio in zip(found.samples, found.ratios, strict=True)]
    return captioned(labelled(picture, columns, named), words(found, samples, real, features))


def words(found: Nearest, samples: ImageSource, real: ImageSource, features: str) -> str:
    """What a sheet shows."""
    among = f"{found.among:,} of " if found.among < len(real) else ""
    return (
        f"{len(found.samples)} of {len(samples):,} samples ({samples.name}) and what is nearest to them among {among}"
        f"{len(real):,} images ({real.name}), in {features} features. Left: the sample's distance to its nearest image / "
        f"that image's to its nearest other. It is at most 1 for {found.closer:.1%} of all samples, and for "
        f"{found.closer_real:.1%} of the real images."
    )


def one(source: ImageSource, i: int) -> Tensor:
    """Image i, uint8 (C, H, W)."""
    return source.read(i, i + 1)[0][0]


def square(image: Tensor, size: int, channels: int) -> np.ndarray:
    """uint8 (C, H, W) to a tile (size, size, channels): enlarged to fit, white around it."""
    height, width = image.shape[1:]
    scale = size / max(height, width)
    picture = to_picture(with_channels(image[None], channels, "")[0].permute(1, 2, 0).contiguous().numpy())
    fitted = picture.resize((round(width * scale), round(height * scale)), Image.Resampling.NEAREST)
    tile = Image.new(picture.mode, (size, size), "white")
    tile.paste(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2))
    return np.asarray(tile).reshape(size, size, channels)
