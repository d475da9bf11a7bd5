"""What can be measured of samples: one table, which configuration, command line, evaluation, reports and docs read.

A new metric is an entry of METRICS and its function. No torch here: the command line must start fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias


@dataclass(frozen=True)
class Number:
    """One number that a metric gives."""

    title: str  # what it is called in reports; {} stands for the feature space
    better: Literal["lower", "higher"] | None = None  # None for what nothing is judged by, as deviations
    published: str | None = None  # what it may be called in Inception's features, which alone give published numbers
    spatial: str | None = None  # and in its spatial ones


@dataclass(frozen=True)
class Metric:
    """What a metric gives, what it needs, and its function."""

    about: str
    numbers: dict[str, Number]
    function: str
    """module:name, called with what was collected of the samples (`evaluation.collect.Collected`), the reference
    (`evaluation.reference.Reference`) and the protocol (`evaluation.protocol.Protocol`); returns numbers by name."""
    rows: bool = False
    """Needs the features of single images on both sides: a reference with images, not statistics alone."""
    logits: bool = False
    """Needs the class probabilities that a feature space gives."""
    by_class: bool = False
    """Needs classes on both sides, and mean and covariance of each."""
    names_classes: bool = False
    """Needs samples with classes, and a feature space that tells the classes of the data."""
    features: str | None = None
    """The only feature space that it is defined in."""
    fewest: Callable[[Any], int] = lambda protocol: 2
    """How many samples and images of the reference a protocol needs for it at the least."""
    package: str | None = None
    """What must be installed beside the core."""


METRICS: dict[str, Metric] = {
    "distance": Metric(
        "Frechet distance of two Gaussians, squared",
        {"frechet_distance": Number("{}Frechet distance", "lower", "FID", "sFID")},
        "catgan.evaluation.metrics:distance",
    ),
    "kid": Metric(
        "kernel distance with a cubic kernel, mean and deviation over 100 subsets of 1,000",
        {
            "kid": Number("{}kernel distance", "lower", "KID"),
            "kid_std": Number("{}kernel distance, deviation over subsets", None, "KID, deviation over subsets"),
        },
        "catgan.evaluation.metrics:kid",
        rows=True,
        package="torch_fidelity",
    ),
    "cmmd": Metric(
        "1,000 times the squared MMD of CLIP's embeddings with a Gaussian kernel of deviation 10",
        {"cmmd": Number("CMMD", "lower")},
        "catgan.evaluation.metrics:cmmd",
        rows=True,
        features="clip",
    ),
    "inception_score": Metric(
        "exp of the mean KL divergence of class probabilities from their mean, over 10 parts",
        {
            "inception_score": Number("{}score", "higher", "Inception Score"),
            "inception_score_std": Number(
                "{}score, deviation over splits", None, "Inception Score, deviation over splits"
            ),
        },
        "catgan.evaluation.metrics:inception_score",
        logits=True,
        fewest=lambda protocol: protocol.score_splits,
        package="torch_fidelity",
    ),
    "precision_recall": Metric(
        "share of samples within the reference's manifold, and the other way round, k = 3",
        {"precision": Number("{}precision", "higher"), "recall": Number("{}recall", "higher")},
        "catgan.evaluation.metrics:precision_recall",
        rows=True,
        fewest=lambda protocol: protocol.neighbours + 1,
        package="torch_fidelity",
    ),
    "authenticity": Metric(
        "share of samples that are farther from their nearest image of the reference than its nearest other is",
        {
            "authenticity": Number("{}authenticity", None),
            "authenticity_real": Number("{}authenticity of real images", None),
        },
        "catgan.evaluation.metrics:authenticity",
        rows=True,
        fewest=lambda protocol: 3,
    ),
    "class_distance": Metric(
        "Frechet distance within each class, mean over classes",
        {"class_distance": Number("per-class {}Frechet distance, mean", "lower", "per-class FID, mean")},
        "catgan.evaluation.metrics:class_distance",
        by_class=True,
    ),
    "class_accuracy": Metric(
        "share of samples in which the classifier sees the class that was asked for",
        {"class_accuracy": Number("class accuracy", "higher")},
        "catgan.evaluation.metrics:class_accuracy",
        names_classes=True,
    ),
}
RENAMED = {"score": "inception_score", "recognised": "class_accuracy"}
Features = Literal["inception", "dinov2", "dinov2-l", "classifier", "pixels", "inception-spatial", "clip"]
# As titles name them.
FEATURES = {
    "inception": "", "dinov2": "DINOv2 ", "dinov2-l": "DINOv2-L ", "classifier": "classifier ", "pixels": "pixel ",
    "inception-spatial": "spatial Inception ", "clip": "CLIP ",
}  # fmt: skip


def numbers() -> dict[str, Number]:
    """All numbers that the metrics give, by name, in the order of the table."""
    return {name: number for metric in METRICS.values() for name, number in metric.numbers.items()}


def metric_of(number: str) -> str:
    """The metric that gives a number."""
    return next(name for name, metric in METRICS.items() if number in metric.numbers)


def titles(features: str = "") -> dict[str, str]:
    """The title under which each number may be reported: only Inception's are FID, sFID, KID and Inception Score.

    features: a feature space, or none where it is not known.
    """
    known = numbers().items()
    if features == "inception":
        return {name: number.published or number.title.format("") for name, number in known}
    spatial = {name: number.spatial for name, number in known if number.spatial and features == "inception-spatial"}
    return {name: number.title.format(FEATURES.get(features, "")) for name, number in known} | spatial


if TYPE_CHECKING:  # type checkers cannot see the names in the table
    MetricName: TypeAlias = str
    NumberName: TypeAlias = str
else:

    def __getattr__(name: str) -> Any:
        """The names in the table as types, when they are asked for: until then entries may be added."""
        if name == "MetricName":
            return Literal[tuple(METRICS)]
        if name == "NumberName":  # those by which something can be judged
            return Literal[tuple(n for n, number in numbers().items() if number.better)]
        raise AttributeError(name)
