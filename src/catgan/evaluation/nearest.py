"""How near samples are to single images of the reference: are they copies, and of what?

A sample's ratio is its distance to its nearest image of the reference as a share of that image's distance to its own nearest
other. Copies have 0. Below 1 a sample is closer than real images are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from catgan.evaluation.collect import kept_row
from catgan.evaluation.sources import ImageSource, with_channels
from catgan.images import captioned, grid, labelled, tile_zoom, to_picture

BLOCK = 1000  # rows of distances at a time
SHOWN = 4  # images of the reference beside a sample


@dataclass(frozen=True)
class Distances:
    """Of samples (n,) and of the reference's images (m,): to the nearest image, and from that to its nearest other."""

    rows: Tensor  # (n,), of the image nearest to each sample
    found: Tensor  # (n,)
    gap: Tensor  # (n,)
    real_found: Tensor  # (m,), each image left out of the reference in turn
    real_gap: Tensor  # (m,)

    @property
    def ratio(self) -> Tensor:
        """found / gap (n,): 0 for a copy, also of an image that the reference has twice."""
        return torch.where(self.found == 0, 0.0, self.found / self.gap)

    @property
    def farther(self) -> float:
        """Share of samples that are farther from their nearest image than that is from its nearest other."""
        return (self.found > self.gap).double().mean().item()

    @property
    def real_farther(self) -> float:
        """The same share of the reference's images, each left out of it in turn."""
        return (self.real_found > self.real_gap).double().mean().item()


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


def nearest_distances(samples: Tensor, images: Tensor) -> Distances:
    """Euclidean distances of features (n, d) and (m, d), m at least 3."""
    a, b = centred(samples, images)
    nearest = []  # the two nearest others of each image
    for i, block in enumerate(b.split(BLOCK)):
        between = distances(block, b)
        between[:, i * BLOCK :].fill_diagonal_(float("inf"))  # itself
        nearest.append(between.topk(2, largest=False))
    away, others = (torch.cat(found) for found in zip(*nearest, strict=True))
    found, rows = (
        torch.cat(found) for found in zip(*(distances(block, b).min(1) for block in a.split(BLOCK)), strict=True)
    )
    next_one = others[:, 0]
    mutual = others[next_one, 0] == torch.arange(len(b))
    without = away[next_one, mutual.long()]  # of its nearest to that one's nearest, itself apart
    return Distances(rows, found, away[rows, 0], away[:, 0], without)


def nearest_samples(samples: Tensor, images: Tensor, count: int, of: int) -> Nearest:
    """The `count` samples of smallest ratio, or all where there are fewer.

    samples (n, d), images (m, d): features, m at least 3, those of m evenly spread images of `of`.
    """
    found = nearest_distances(samples, images)
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


def centred(samples: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Both less the images' mean, so that distances lose fewer digits."""
    return samples - images.mean(0), images - images.mean(0)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances of centred rows, (n, m); what is within the rounding of equal rows is 0."""
    found = torch.cdist(a, b)
    return found.masked_fill_(found < 1e-3 * b.norm(dim=1).mean(), 0.0)


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
