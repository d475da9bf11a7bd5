"""Numbers equal torch-fidelity's own functions, called as a whole on the same features."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from catgan.errors import UserError
from catgan.evaluation.collect import Collected
from catgan.evaluation.frechet import Moments, SingularWarning, frechet_distance
from catgan.evaluation.metrics import check_possible, class_distance, kid, measured, precision_recall, score
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.reference import Reference


def features(count: int, dim: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


class Space:
    """What a feature space says of itself."""

    name, channels, dim, classes, names_classes = "classifier", 3, 6, 5, True


@pytest.mark.parametrize("count", [1000, 1003, 10])
def test_the_score_is_that_of_all_logits_at_once(count: int) -> None:
    logits = 3 * features(count, 20, 0)
    theirs = isc_features_to_metric(logits)
    ours = score(logits, splits=10)
    assert ours["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-14)
    assert ours["inception_score_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-11, abs=1e-13)


def test_kid_is_torch_fidelitys() -> None:
    a, b = features(1100, 12, 0), features(1050, 12, 1, 0.1)
    theirs = kid_features_to_metric(a, b, kid_subsets=3, verbose=False)
    assert kid(a, b, subsets=3) == {
        "kid": theirs["kernel_inception_distance_mean"],
        "kid_std": theirs["kernel_inception_distance_std"],
    }


def test_kid_of_few_samples_takes_subsets_of_all() -> None:
    a, b = features(60, 12, 0), features(90, 12, 1)
    theirs = kid_features_to_metric(a, b, kid_subsets=5, kid_subset_size=60, verbose=False)
    assert kid(a, b, subsets=5)["kid"] == theirs["kernel_inception_distance_mean"]


def test_precision_and_recall_in_blocks_are_those_at_once() -> None:
    a, b = features(1300, 6, 0), features(1100, 6, 1, 0.4)
    theirs = prc_features_to_metric(a, b, verbose=False)
    ours = precision_recall(a, b, neighbours=3)
    assert ours == {n: pytest.approx(theirs[n], abs=1e-12) for n in ("precision", "recall")}
    assert 0 < ours["recall"] < 1


def test_precision_asks_about_the_samples_and_recall_about_the_reference() -> None:
    """Samples of one of two modes: all of them are real, half of the real ones are missed."""
    one, other = features(50, 4, 0), features(50, 4, 1, 100.0)
    found = precision_recall(one, torch.cat([one, other]), neighbours=3)
    assert found == {"precision": 1.0, "recall": 0.5}


def test_too_few_samples_are_errors() -> None:
    with pytest.raises(UserError, match="10 splits needs at least 10 samples, not 4"):
        score(features(4, 5, 0), 10)
    with pytest.raises(UserError, match="more than 3 samples"):
        precision_recall(features(3, 5, 0), features(9, 5, 1), 3)


def test_the_per_class_distance_is_the_mean_of_the_classes() -> None:
    a = [Moments.of(features(30, 4, k)).statistics for k in range(3)]
    b = [Moments.of(features(30, 4, k, k)).statistics for k in range(3, 6)]
    expected = np.mean([frechet_distance(x, y) for x, y in zip(a, b, strict=True)])
    assert class_distance(a, b)["class_distance"] == pytest.approx(expected)


def test_small_classes_are_warned_about_once_and_missing_ones_leave_no_number() -> None:
    a = [Moments.of(features(n, 4, n)).statistics for n in (3, 4, 30)]
    with pytest.warns(SingularWarning) as said:
        assert "class_distance" in class_distance(a, a)
    assert [str(w.message)[:14] for w in said] == ["2 of 3 classes"]
    with pytest.warns(SingularWarning, match="class 1 has fewer than 2 images"):
        assert class_distance(a, [a[0], Moments.of(features(1, 4, 0)).statistics, a[2]]) == {}


def test_every_metric_asked_for_is_measured_and_no_other() -> None:
    x, y = features(40, 6, 0), features(50, 6, 1)
    collected = Collected(Moments.of(x), x, features(40, 5, 2), recognised=10, labelled=40)
    reference = Reference("real", "", Moments.of(y).statistics, y)
    everything = Protocol("classifier", ("distance", "kid", "score", "precision_recall", "recognised"), kid_subsets=2)
    assert sorted(measured(collected, reference, everything)) == [
        "frechet_distance", "inception_score", "inception_score_std", "kid", "kid_std",
        "precision", "recall", "recognised",
    ]  # fmt: skip
    assert measured(collected, reference, dataclasses.replace(everything, metrics=("recognised",))) == {
        "recognised": 0.25
    }


@pytest.mark.parametrize(
    ("metric", "changes", "said"),
    [
        ("distance", {"dim": 7}, "real has 6 features, classifier gives 7"),
        ("kid", {}, "real has mean and covariance only"),
        ("precision_recall", {}, "real has mean and covariance only"),
        ("score", {"classes": 0}, "score needs class probabilities"),
        ("class_distance", {}, "class_distance needs classes"),
        ("recognised", {"names_classes": False}, "recognised needs samples with classes"),
    ],
)
def test_a_metric_that_cannot_be_had_is_named(metric: str, changes: dict[str, object], said: str) -> None:
    space = type("Other", (Space,), changes)()
    reference = Reference("real", "", Moments.of(features(50, 6, 1)).statistics)
    with pytest.raises(UserError, match=said):
        check_possible(Protocol("classifier", (metric,)), space, reference, labelled=True)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_possible(Protocol("classifier", ("distance", "score")), Space(), reference, labelled=False)
