"""The functions of `catgan.metrics.METRICS`: from what was collected of samples and of a reference to numbers.

torch-fidelity's functions do the work where it has them. `check_possible` has seen to it that what each needs is there.
"""

from __future__ import annotations

import warnings
from pkgutil import resolve_name

import numpy as np
import torch
from torch import Tensor

from catgan.evaluation.collect import Collected
from catgan.evaluation.distances import nearest_distances
from catgan.evaluation.frechet import SingularWarning, frechet_distance
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.reference import Reference

SHUFFLE_SEED = 2020  # torch-fidelity's, so that its numbers are reproduced
SUBSET = 1000  # samples of a KID subset
BLOCK = 1000  # rows of distances at a time
SIGMA, SCALE = 10.0, 1000.0  # of CMMD


def measured(samples: Collected, reference: Reference, protocol: Protocol) -> dict[str, float]:
    """All numbers of a protocol, by name."""
    numbers: dict[str, float] = {}
    for metric in protocol.wanted.values():
        numbers |= resolve_name(metric.function)(samples, reference, protocol)
    return numbers


def distance(samples: Collected, reference: Reference, protocol: Protocol) -> dict[str, float]:
    """The squared Frechet distance of two Gaussians."""
    return {"frechet_distance": frechet_distance(samples.moments.statistics, reference.statistics)}


def kid(samples: Collected, reference: Reference, protocol: Protocol) -> dict[str, float]:
    """Kernel distance: squared MMD with a cubic kernel, mean and deviation over random subsets."""
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = rows(samples, reference)
    found = kid_features_to_metric(
        a, b, kid_subsets=protocol.kid_subsets, kid_subset_size=min(SUBSET, len(a), len(b)), rng_seed=SHUFFLE_SEED,
        verbose=False,
    )  # fmt: skip
    return {"kid": found["kernel_inception_distance_mean"], "kid_std": found["kernel_inception_distance_std"]}


def cmmd(samples: Collected, reference: Reference, protocol: Protocol) -> dict[str, float]:
    """SCALE times the squared MMD with the kernel exp(-|x - y|^2 / (2 SIGMA^2)), over all pairs, those of an image with
    itself among them (Jayasumana et al., https://arxiv.org/abs/2401.09603).

    Of unit vectors every kernel is between 0.98 and 1, so what it lacks of 1 is averaged: the ones cancel.
    """
    x, y = rows(samples, reference)
    return {"cmmd": SCALE * (mean_lack(x, y) * 2 - mean_lack(x, x) - mean_lack(y, y))}


def mean_lack(x: Tensor, y: Tensor) -> float:
    """1 - exp(-|x_i - y_j|^2 / (2 SIGMA^2)), mean over all pairs of rows."""
    x, y = x.double(), y.double()
    lengths, total = y.square().sum(1), 0.0
    for block in x.split(BLOCK):
        squares = block.square().sum(1, keepdim=True) + lengths - 2 * block @ y.T
        total -= float(torch.expm1(-squares.clamp_(min=0) / (2 * SIGMA**2)).sum())
    return total / (len(x) * len(y))


def inception_score(samples: Collected, reference: Reference, protocol: Protocol) -> dict[str, float]:
    """exp of the mean KL divergence of class probabilities from their mean, mean and deviation over parts.

    torch-fidelity's function, one part at a time: as a whole it would need twelve times the memory of the logits.
    """
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits, splits = samples.logits, protocol.score_splits
    assert logits is not None
    count = len(logits)
    order = np.random.RandomState(SHUFFLE_SEED).permutation(count)
    parts = [order[i * count // splits : (i + 1) * count // splits] for i in range(splits)]
    scores = [isc_features_to_metric(logits[part], splits=1, shuffle=False)["inception_score_mean"] for part in parts]
    return {"inception_score": float(np.mean(scores)), "inception_score_std": float(np.std(scores))}


def precision_recall(samples: Collected, reference: Reference, protocol: Protocol) -> dict[str, float]:
    """Share of samples in the reference's manifold, and the other way round (Kynkaanniemi et al.), in blocks."""
    from torch_fidelity.metric_prc import prc_features_to_metric

    found = prc_features_to_metric(
        *rows(samples, reference), prc_neighborhood=protocol.neighbours, prc_batch_size=BLOCK, save_cpu_ram=True,
        verbose=False,
    )  # fmt: skip
    return {"precision": found["precision"], "recall": found["recall"]}


def authenticity(samples: Collected, reference: Reference, protocol: Protocol) -> dict[str, float]:
    """Share of samples that are farther from their nearest image of the reference than that is from its nearest other.

    Alaa et al., https://arxiv.org/abs/2102.08921. Copies have 0. Unseen images have a half or more, by the feature space:
    as many as the reference's images have when each is left out of it in turn, `authenticity_real`. A reference that is
    a part of the training data (`protocol.reference_features`) sees copies of that part alone.
    """
    found = samples.distances = nearest_distances(*rows(samples, reference))
    return {"authenticity": found.farther, "authenticity_real": found.real_farther}


def class_distance(samples: Collected, reference: Reference, protocol: Protocol) -> dict[str, float]:
    """Mean over classes of the Frechet distance within the class; nothing, and a warning, where a class is missing."""
    pairs = list(zip([m.statistics for m in samples.by_class], reference.by_class, strict=True))
    lacking = [k for k, pair in enumerate(pairs) if min(s.count for s in pair) < 2]
    if lacking:
        warnings.warn(
            f"no per-class distance: class {lacking[0]} has fewer than 2 images", SingularWarning, stacklevel=2
        )
        return {}
    singular = sum(any(s.singular for s in pair) for pair in pairs)
    if singular:
        warnings.warn(
            f"{singular} of {len(pairs)} classes have no more images than features: their covariances are singular and "
            "the per-class distance too large; use more samples",
            SingularWarning,
            stacklevel=2,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SingularWarning)
        return {"class_distance": float(np.mean([frechet_distance(*pair) for pair in pairs]))}


def class_accuracy(samples: Collected, reference: Reference, protocol: Protocol) -> dict[str, float]:
    """Share of samples in which the feature space's classifier sees the class that was asked for."""
    return {"class_accuracy": samples.correct / max(1, samples.labelled)}


def rows(samples: Collected, reference: Reference) -> tuple[Tensor, Tensor]:
    """Features of single images, (n, d) and (m, d)."""
    assert samples.features is not None
    assert reference.features is not None
    return samples.features, reference.features
