"""Are the digits readable, varied, and new? Measured against the real ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from catgan.data.datasets import Images
from catgan.evaluation.evaluate import evaluate
from catgan.evaluation.sources import Generated
from catgan.images import from_bytes
from catgan.sampling.pipeline import CATPipeline

SAMPLES = 1000  # seeds 0, 1, ..., classes in turn


@dataclass(frozen=True)
class Quality:
    """What was measured on `samples` generated digits, 8-bit pixels, psi = 1, averaged weights."""

    samples: int
    classifier_accuracy: float  # the classifier's share of held-out real digits
    class_accuracy: float  # its share of generated digits: seen as the class asked for
    frechet_distance: float  # from the real digits, in the classifier's features
    distance: float  # mean distance of two generated digits of a class
    real_distance: float  # the same of real digits
    nearest: float  # mean distance of a generated digit to the nearest real one
    real_nearest: float  # mean distance of a real digit to the nearest other real one
    copies: float  # share of generated digits closer to a real one than a tenth of real_nearest

    @property
    def variety(self) -> float:
        """Distance within a class, as a share of the real digits'."""
        return self.distance / self.real_distance

    def to_dict(self) -> dict[str, float]:
        return asdict(self) | {"variety": self.variety}


def distance_within(x: Tensor, y: Tensor) -> float:
    """Mean Euclidean distance of two samples of a class, averaged over classes. x: (n, C, S, S) in [-1, 1]."""
    return float(np.mean([torch.pdist(x[y == k].flatten(1)).mean().item() for k in sorted(set(y.tolist()))]))


def measure(pipe: CATPipeline, real: Images) -> tuple[Quality, Tensor, Tensor]:
    """How generated digits compare with the real ones; and those digits, (n, C, S, S) in [-1, 1], and their classes."""
    source = Generated(pipe, SAMPLES, "balanced")
    pixels, y = source.read(0, SAMPLES)
    x = from_bytes(pixels)
    metrics = ("distance", "class_accuracy")
    result = evaluate(source, "digits", features="classifier", metrics=metrics, samples=SAMPLES, quiet=False)
    flat = real.pixels.flatten(1)
    between = torch.cdist(x.flatten(1), flat).min(1).values
    real_between = torch.cdist(flat, flat).fill_diagonal_(float("inf")).min(1).values
    assert y is not None
    quality = Quality(
        samples=len(x),
        classifier_accuracy=result.about["feature_space"]["accuracy"],
        **result.metrics,
        distance=distance_within(x, y),
        real_distance=distance_within(real.pixels, real.labels),
        nearest=between.mean().item(),
        real_nearest=real_between.mean().item(),
        copies=(between < real_between.mean() / 10).float().mean().item(),
    )
    return quality, x, y


def nearest_rows(x: Tensor, real: Images, count: int) -> Tensor:
    """Row numbers of the `count` nearest real digits of each of x: (n, count)."""
    return torch.cdist(x.flatten(1), real.pixels.flatten(1)).topk(count, largest=False).indices
