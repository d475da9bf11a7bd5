"""Are the digits readable, varied, and new? Measured against the real ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from torch import Tensor

from catgan.data.datasets import Images
from catgan.draws import sample_z
from catgan.evaluation.alignment import fixed_pairs
from catgan.sampling.pipeline import CATPipeline

SAMPLES = 1000


@dataclass(frozen=True)
class Quality:
    """What was measured on `samples` generated digits, 8-bit pixels, psi = 1, averaged weights."""

    samples: int
    classifier_accuracy: float  # share of held-out real digits that the classifier recognises
    recognised: float  # share of generated digits that it recognises as the class asked for
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


def generated_digits(pipe: CATPipeline, samples: int = SAMPLES) -> tuple[Tensor, Tensor]:
    """The protocol's samples, rounded to 8-bit pixels and back to [-1, 1]: (n, C, S, S), and their classes."""
    classes, seeds = fixed_pairs(samples, pipe.config.sample.classes)
    pixels = pipe(classes, z=sample_z(seeds, pipe.generator.z_dim), batch_size=250).array
    x = torch.from_numpy(pixels).movedim(-1, 1).float() / 127.5 - 1
    return x, torch.tensor(classes)


def measure(x: Tensor, y: Tensor, real: Images) -> Quality:
    """Compare generated digits x (n, C, S, S) in [-1, 1] of classes y with the real ones."""
    features, labels = real.pixels.flatten(1).numpy(), real.labels.numpy()
    train_x, test_x, train_y, test_y = train_test_split(
        features, labels, test_size=0.25, random_state=0, stratify=labels
    )
    classifier = SVC(gamma=0.064, C=10).fit(train_x, train_y)
    between = torch.cdist(x.flatten(1), real.pixels.flatten(1)).min(1).values
    real_between = (
        torch.cdist(real.pixels.flatten(1), real.pixels.flatten(1)).fill_diagonal_(float("inf")).min(1).values
    )
    return Quality(
        samples=len(x),
        classifier_accuracy=float(classifier.score(test_x, test_y)),
        recognised=float(classifier.score(x.flatten(1).numpy(), y.numpy())),
        distance=distance_within(x, y),
        real_distance=distance_within(real.pixels, real.labels),
        nearest=between.mean().item(),
        real_nearest=real_between.mean().item(),
        copies=(between < real_between.mean() / 10).float().mean().item(),
    )


def nearest_rows(x: Tensor, real: Images, count: int) -> Tensor:
    """Row numbers of the `count` nearest real digits of each of x: (n, count)."""
    return torch.cdist(x.flatten(1), real.pixels.flatten(1)).topk(count, largest=False).indices
