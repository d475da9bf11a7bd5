"""Numbers equal torch-fidelity's own functions, called as a whole on the same features."""

from __future__ import annotations

import dataclasses
import warnings
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from catgan.errors import UserError
from catgan.evaluation.collect import Collected
from catgan.evaluation.evaluator import Evaluator, Facts
from catgan.evaluation.features import FeatureSpace
from catgan.evaluation.frechet import Moments, SingularWarning, Statistics, frechet_distance
from catgan.evaluation.metrics import class_distance, inception_score, kid, measured, precision_recall
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.reference import Reference
from catgan.metrics import METRICS


def features(count: int, dim: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


def collected(x: Tensor, logits: Tensor | None = None, **more: int) -> Collected:
    return Collected(Moments.of(x), x, logits, **more)


def real(x: Tensor, by_class: tuple[Statistics, ...] = ()) -> Reference:
    return Reference("real", "", Moments.of(x).statistics, x, by_class)


class Space:
    """What a feature space says of itself."""

    name, channels, dim, classes, names_classes = "classifier", 3, 6, 5, True


@pytest.mark.parametrize("count", [1000, 1003, 10])
def test_the_score_is_that_of_all_logits_at_once(count: int) -> None:
    logits = 3 * features(count, 20, 0)
    theirs = isc_features_to_metric(logits)
    ours = inception_score(collected(logits, logits), real(logits), Protocol())
    assert ours["inception_score"] == pytest.approx(theirs["inception_score_mean"], rel=1e-14)
    assert ours["inception_score_std"] == pytest.approx(theirs["inception_score_std"], rel=1e-11, abs=1e-13)


def test_kid_is_torch_fidelitys() -> None:
    a, b = features(1100, 12, 0), features(1050, 12, 1, 0.1)
    theirs = kid_features_to_metric(a, b, kid_subsets=3, verbose=False)
    assert kid(collected(a), real(b), Protocol(kid_subsets=3)) == {
        "kid": theirs["kernel_inception_distance_mean"],
        "kid_std": theirs["kernel_inception_distance_std"],
    }


def test_kid_of_few_samples_takes_subsets_of_all() -> None:
    a, b = features(60, 12, 0), features(90, 12, 1)
    theirs = kid_features_to_metric(a, b, kid_subsets=5, kid_subset_size=60, verbose=False)
    assert kid(collected(a), real(b), Protocol(kid_subsets=5))["kid"] == theirs["kernel_inception_distance_mean"]


def test_precision_and_recall_in_blocks_are_those_at_once() -> None:
    a, b = features(1300, 6, 0), features(1100, 6, 1, 0.4)
    theirs = prc_features_to_metric(a, b, verbose=False)
    ours = precision_recall(collected(a), real(b), Protocol())
    assert ours == {n: pytest.approx(theirs[n], abs=1e-12) for n in ("precision", "recall")}
    assert 0 < ours["recall"] < 1


def test_precision_asks_about_the_samples_and_recall_about_the_reference() -> None:
    """Samples of one of two modes: all of them are real, half of the real ones are missed."""
    one, other = features(50, 4, 0), features(50, 4, 1, 100.0)
    found = precision_recall(collected(one), real(torch.cat([one, other])), Protocol())
    assert found == {"precision": 1.0, "recall": 0.5}


def by_class(counts: list[int], first: int = 0, shift: float = 0.0) -> list[Moments]:
    return [Moments.of(features(n, 4, first + k, k * shift)) for k, n in enumerate(counts)]


def distance_by_class(a: list[Moments], b: list[Moments]) -> dict[str, float]:
    x = features(9, 4, 0)
    samples = Collected(Moments.of(x), by_class=a)
    return class_distance(samples, real(x, tuple(m.statistics for m in b)), Protocol())


def test_the_per_class_distance_is_the_mean_of_the_classes() -> None:
    a, b = by_class([30] * 3), by_class([30] * 3, 3, 1.0)
    expected = np.mean([frechet_distance(x.statistics, y.statistics) for x, y in zip(a, b, strict=True)])
    assert distance_by_class(a, b)["class_distance"] == pytest.approx(expected)


def test_small_classes_are_warned_about_once_and_missing_ones_leave_no_number() -> None:
    a = by_class([3, 4, 30])
    with pytest.warns(SingularWarning) as said:
        assert "class_distance" in distance_by_class(a, a)
    assert [str(w.message)[:14] for w in said] == ["2 of 3 classes"]
    with pytest.warns(SingularWarning, match="class 1 has fewer than 2 images"):
        assert distance_by_class(a, by_class([3, 1, 30])) == {}


EVERYTHING = Protocol(
    "classifier", ("distance", "kid", "inception_score", "precision_recall", "class_accuracy"), kid_subsets=2
)


def test_every_metric_asked_for_is_measured_and_no_other() -> None:
    samples = collected(features(40, 6, 0), features(40, 5, 2), correct=10, labelled=40)
    reference = real(features(50, 6, 1))
    assert sorted(measured(samples, reference, EVERYTHING)) == [
        "class_accuracy", "frechet_distance", "inception_score", "inception_score_std", "kid", "kid_std",
        "precision", "recall",
    ]  # fmt: skip
    one = dataclasses.replace(EVERYTHING, metrics=("class_accuracy",))
    assert measured(samples, reference, one) == {"class_accuracy": 0.25}


def check(protocol: Protocol, space: object, reference: Reference, count: int = 40, classes: int = 5) -> None:
    names = tuple(str(k) for k in range(classes))
    Evaluator(reference, cast(FeatureSpace, space), protocol).check(Facts("samples", count, names))


@pytest.mark.parametrize(
    ("metric", "changes", "said"),
    [
        ("distance", {"dim": 7}, "real has 6 features, classifier gives 7"),
        ("kid", {}, "real has mean and covariance only: kid needs its images"),
        ("precision_recall", {}, "real has mean and covariance only"),
        ("inception_score", {"classes": 0}, "inception_score needs class probabilities"),
        ("cmmd", {"name": "pixels"}, "cmmd is defined in the features of clip, not of pixels: leave cmmd out"),
        ("class_distance", {}, "class_distance needs classes"),
        ("class_accuracy", {"names_classes": False}, "class_accuracy needs samples with classes"),
    ],
)
def test_a_metric_that_cannot_be_had_is_named(metric: str, changes: dict[str, object], said: str) -> None:
    space = type("Other", (Space,), changes)()
    statistics = Reference("real", "", Moments.of(features(50, 6, 1)).statistics)
    with pytest.raises(UserError, match=said):
        check(Protocol("classifier", (metric,)), space, statistics)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(Protocol("classifier", ("distance", "inception_score")), Space(), statistics, classes=0)


@pytest.mark.parametrize(
    ("metric", "count", "known", "said"),
    [
        ("distance", 1, 50, "distance needs at least 2 images, samples has 1"),
        ("inception_score", 9, 50, "inception_score needs at least 10 images, samples has 9"),
        ("precision_recall", 3, 50, "precision_recall needs at least 4 images, samples has 3"),
        ("precision_recall", 50, 3, "precision_recall needs at least 4 images, real has 3"),
    ],
)
def test_too_few_samples_are_named_before_any_work(metric: str, count: int, known: int, said: str) -> None:
    with pytest.raises(UserError, match=f"{said}: use more, or leave {metric} out"):
        check(Protocol("classifier", (metric,)), Space(), real(features(known, 6, 0)), count)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "kid", dataclasses.replace(METRICS["kid"], package="no_such_package"))
    with pytest.raises(UserError, match=r"kid needs no_such_package, .*pip install 'catgan\[eval\]'"):
        check(Protocol("classifier", ("kid",)), Space(), real(features(9, 6, 0)))
