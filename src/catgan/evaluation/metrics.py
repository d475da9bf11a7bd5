"""From what was collected of samples and of a reference to numbers, by torch-fidelity's functions where it has them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from catgan.errors import UserError
from catgan.evaluation.collect import Collected
from catgan.evaluation.features import FeatureSpace, need
from catgan.evaluation.frechet import SingularWarning, Statistics, frechet_distance
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.reference import Reference

SHUFFLE_SEED = 2020  # torch-fidelity's, so that its numbers are reproduced
SUBSET = 1000  # samples of a KID subset
BLOCK = 1000  # rows of distances at a time in precision and recall


def check_possible(protocol: Protocol, space: FeatureSpace, reference: Reference, labelled: bool) -> None:
    """Raise UserError for a metric that these features, this reference or these samples cannot give."""
    wanted = set(protocol.metrics)
    if wanted & {"kid", "score", "precision_recall"}:
        need("torch_fidelity")  # or its absence would be noticed after all the work
    if reference.statistics.dim != space.dim:
        raise UserError(
            f"{reference.name} has {reference.statistics.dim} features, {space.name} gives {space.dim}: "
            "use a reference that was computed in the same feature space"
        )
    if protocol.rows_kept and reference.features is None:
        raise UserError(
            f"{reference.name} has mean and covariance only: KID, precision and recall need its images; give those as --reference"
        )
    if "score" in wanted and not space.classes:
        raise UserError(f"a score needs class probabilities, and {space.name} has none: leave score out of --metrics")
    if "class_distance" in wanted and not (reference.by_class and labelled):
        raise UserError("class_distance needs classes in samples and reference: leave it out of --metrics")
    if "recognised" in wanted and not (space.names_classes and labelled):
        raise UserError("recognised needs samples with classes, and --features classifier: leave it out of --metrics")


def measured(samples: Collected, reference: Reference, protocol: Protocol) -> dict[str, float]:
    """The numbers of a protocol."""
    numbers: dict[str, float] = {}
    wanted = set(protocol.metrics)
    if "distance" in wanted:
        numbers["frechet_distance"] = frechet_distance(samples.moments.statistics, reference.statistics)
    if "kid" in wanted:
        assert samples.features is not None
        assert reference.features is not None
        numbers |= kid(samples.features, reference.features, protocol.kid_subsets)
    if "score" in wanted:
        assert samples.logits is not None
        numbers |= score(samples.logits, protocol.score_splits)
    if "precision_recall" in wanted:
        assert samples.features is not None
        assert reference.features is not None
        numbers |= precision_recall(samples.features, reference.features, protocol.neighbours)
    if "class_distance" in wanted:
        numbers |= class_distance([m.statistics for m in samples.by_class], reference.by_class)
    if "recognised" in wanted:
        numbers["recognised"] = samples.recognised / max(1, samples.labelled)
    return numbers


def kid(samples: Tensor, reference: Tensor, subsets: int) -> dict[str, float]:
    """Kernel distance: squared MMD with a cubic kernel, mean and deviation over random subsets. (n, d), (m, d)."""
    function = need("torch_fidelity.metric_kid").kid_features_to_metric
    size = min(SUBSET, len(samples), len(reference))
    found = function(
        samples, reference, kid_subsets=subsets, kid_subset_size=size, rng_seed=SHUFFLE_SEED, verbose=False
    )
    return {"kid": found["kernel_inception_distance_mean"], "kid_std": found["kernel_inception_distance_std"]}


def score(logits: Tensor, splits: int) -> dict[str, float]:
    """exp of the mean KL divergence of class probabilities from their mean, over `splits` parts. logits: (n, classes).

    torch-fidelity's function, one part at a time: as a whole it would need twelve times the memory of the logits.
    """
    function = need("torch_fidelity.metric_isc").isc_features_to_metric
    if len(logits) < splits:
        raise UserError(f"a score over {splits} splits needs at least {splits} samples, not {len(logits)}")
    order = np.random.RandomState(SHUFFLE_SEED).permutation(len(logits))
    count = len(logits)
    parts = [order[i * count // splits : (i + 1) * count // splits] for i in range(splits)]
    scores = [function(logits[rows], splits=1, shuffle=False)["inception_score_mean"] for rows in parts]
    return {"inception_score": float(np.mean(scores)), "inception_score_std": float(np.std(scores))}


def precision_recall(samples: Tensor, reference: Tensor, neighbours: int) -> dict[str, float]:
    """Share of samples in the reference's manifold, and the other way round (Kynkaanniemi et al.), in blocks."""
    if min(len(samples), len(reference)) <= neighbours:
        raise UserError(f"precision and recall need more than {neighbours} samples on either side")
    found = need("torch_fidelity.metric_prc").prc_features_to_metric(
        samples, reference, prc_neighborhood=neighbours, prc_batch_size=BLOCK, save_cpu_ram=True, verbose=False
    )
    return {"precision": found["precision"], "recall": found["recall"]}


def class_distance(samples: Sequence[Statistics], reference: Sequence[Statistics]) -> dict[str, float]:
    """Mean over classes of the Frechet distance within the class; nothing, and a warning, where a class is missing."""
    pairs = list(zip(samples, reference, strict=True))
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
