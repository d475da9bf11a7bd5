"""Distances of samples to the nearest images of the reference, and of these to each other.

A sample's ratio is its distance to its nearest image of the reference as a share of that image's distance to its own nearest
other. Copies have 0. Below 1 a sample is closer than real images are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 1000  # rows of distances at a time


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


def centred(samples: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Both less the images' mean, so that distances lose fewer digits."""
    return samples - images.mean(0), images - images.mean(0)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances of centred rows, (n, m); what is within the rounding of equal rows is 0."""
    found = torch.cdist(a, b)
    return found.masked_fill_(found < 1e-3 * b.norm(dim=1).mean(), 0.0)
