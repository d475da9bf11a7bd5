"""The one way from samples to numbers, for the trainer, the command line, the demo and Python."""

from __future__ import annotations

import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catgan.config import Config
from catgan.encoders.rotations import ROTATIONS
from catgan.errors import UserError
from catgan.evaluation.classifier import Classifier
from catgan.evaluation.collect import Keep, Work, collect
from catgan.evaluation.features import FeatureSpace
from catgan.evaluation.metrics import measured, rows
from catgan.evaluation.nearest import nearest_samples
from catgan.evaluation.protocol import ROUNDINGS, Protocol, Result, versions
from catgan.evaluation.reference import Reference
from catgan.evaluation.sources import Generated, ImageSource
from catgan.metrics import METRICS
from catgan.system.packages import need
from catgan.system.pieces import work_folder
from catgan.system.progress import counted

ALONE = Work()


class Evaluator:
    """Measures samples against one reference, in one feature space, by one protocol."""

    def __init__(self, reference: Reference, features: FeatureSpace, protocol: Protocol, work: Work = ALONE) -> None:
        """work: how images are gone through, which changes no number. Raises UserError for what does not fit."""
        self.reference, self.features, self.protocol, self.work = reference, features, protocol.check(), work
        if reference.statistics.dim != features.dim:
            raise UserError(
                f"{reference.name} has {reference.statistics.dim} features, {features.name} gives {features.dim}: "
                "use a reference that was computed in the same feature space"
            )

    def check(self, samples: Facts) -> None:
        """Raise UserError for a metric of the protocol that such samples and this reference cannot give."""
        found = self.reference
        images = 0 if found.features is None else len(found.features)
        classes = tuple(map(str, range(len(found.by_class))))
        check_possible(self.protocol, self.features, samples, Facts(found.name, images, classes))
        if self.by_class:
            self.class_numbers(samples)

    @property
    def by_class(self) -> bool:
        """Whether the protocol looks at classes."""
        return any(metric.by_class or metric.names_classes for metric in self.protocol.wanted.values())

    @property
    def classes(self) -> int:
        """How many classes the reference and the feature space tell apart."""
        own = self.features.classes if self.features.names_classes else 0
        return max(len(self.reference.by_class), own)

    def class_numbers(self, samples: Facts) -> list[int]:
        """What the reference calls each class of the samples: by name, or by number where one side has no names."""
        theirs, names = samples.class_names, self.reference.class_names
        leave = f"leave {' and '.join(n for n, m in METRICS.items() if m.by_class or m.names_classes)} out of --metrics"
        if set(theirs) <= set(names):
            return [names.index(name) for name in theirs]
        if names and not numbered(theirs) and not numbered(names):
            missing = next(name for name in theirs if name not in names)
            raise UserError(
                f"{samples.name} has a class {missing}, the reference ({self.reference.name}) has none of that name: "
                f"must be one of {', '.join(names[:12])}{', ...' * (len(names) > 12)}, or {leave}"
            )
        if len(theirs) > self.classes:
            raise UserError(
                f"{samples.name} has {counted(len(theirs), 'class', 'classes')}, the reference {self.classes}: must be as many, or {leave}"
            )
        return list(range(len(theirs)))

    def measure(
        self, source: ImageSource, folder: Path | None = None, beside: tuple[int, ImageSource] | None = None
    ) -> Result:
        """The numbers of these samples, with everything that they depend on.

        folder: for finished parts, so that an interrupted call goes on and several processes share the work; it must
        belong to this source, reference and protocol alone, and goes away at the end. Every process returns the same.
        beside: how many of the samples nearest to a real image to name, and the reference's images; for a protocol with
        authenticity. Where files of either could not be read none are named, and a warning says so.
        Raises UserError for metrics that cannot be had, before any work, and for more broken files than the share
        work.max_broken.
        """
        protocol = self.protocol if isinstance(source, Generated) else self.protocol.of_given_images(len(source))
        samples = Facts.of(source)
        self.check(samples)
        keep = Keep(
            len(source) if protocol.rows_kept else 0,
            any(metric.logits for metric in protocol.wanted.values()),
            self.classes if self.by_class else 0,
        )
        classes = self.class_numbers(samples) if self.by_class else ()
        began = time.monotonic()
        with work_folder(folder, self.work.processes) if folder else nullcontext():
            found = collect(source, self.features, keep, self.work, folder, classes)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            numbers = measured(found, self.reference, protocol)
        notes = list(dict.fromkeys(str(w.message) for w in said if issubclass(w.category, UserWarning)))
        if isinstance(self.features, Classifier) and self.features.doubt:
            notes.append(self.features.doubt)
        if isinstance(source, Generated) and (flattery := flattered(source.pipe.config, self.features.name)):
            notes.append(flattery)
        for name, broken in ((source.name, found.broken), (self.reference.name, self.reference.broken)):
            if broken:
                notes.append(
                    f"{len(broken)} files of {name} could not be read and were left out: {'; '.join(broken[:5])}"
                )
        about = self.describe(source, found.moments.count)
        step = source.pipe.step if isinstance(source, Generated) else 0
        nearest = None
        if beside and (found.broken or self.reference.broken):
            notes.append(
                "no nearest images are shown: files could not be read, so features have no numbers of pictures"
            )
        elif beside and found.distances:
            nearest = nearest_samples(found.distances, *rows(found, self.reference), beside[0], len(beside[1]))
        elif beside:
            notes.append("no nearest images are shown: authenticity was not measured")
        return Result(numbers, protocol, about, time.monotonic() - began, notes, step, nearest=nearest)

    def describe(self, source: ImageSource, count: int) -> dict[str, Any]:
        """What was compared, for the record."""
        reference, space = self.reference, self.features
        about: dict[str, Any] = {
            "measured": {"name": source.name, "images": count, "identity": source.identity()},
            "reference": {"name": reference.name, "images": reference.statistics.count, "identity": reference.identity},
            "feature_space": {"name": space.name, "dim": space.dim, "identity": space.identity()},
            "versions": versions(),
        }
        if isinstance(space, Classifier):
            about["feature_space"]["accuracy"] = space.accuracy
        if isinstance(source, Generated):
            about["measured"] |= {"recipe": source.pipe.config.recipe, "step": source.pipe.step}
            vae = source.pipe.vae
            decoder = vae and {"identity": vae.identity, "scale": vae.scale, "precision": source.pipe.precision}
            about |= {"decoder": decoder, "rounding": ROUNDINGS[self.protocol.rounding]}
        return about


def flattered(config: Config, features: str) -> str | None:
    """Why these features say more good of such a generator than people would, if they do."""
    vision = config.vision.path
    if features.startswith("inception") and vision not in (None, ROTATIONS):
        return (
            f"the discriminator saw through {vision}: if that was trained on ImageNet's labels, as Inception was, FID "
            "flatters this generator"
        )
    if features.startswith("dinov2") and config.objective.representation:
        return "the discriminator was trained with DINOv2, whose features flatter this generator"
    return None


# -- what is possible ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What must be known of samples or of a reference to say what can be measured."""

    name: str
    images: int  # that can be looked at singly: 0 for statistics
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, source: ImageSource) -> Facts:
        return cls(source.name, len(source), source.class_names)


def obstacle(name: str, protocol: Protocol, space: FeatureSpace, samples: Facts, reference: Facts) -> str | None:
    """Why a metric cannot be had of these samples, reference and features; None if it can."""
    metric, leave = METRICS[name], f"leave {name} out of --metrics"
    if metric.features not in (None, space.name):
        only = metric.features
        return f"{name} is defined in the features of {only}, not of {space.name}: {leave}, or give --features {only}"
    if metric.rows and not reference.images:
        return f"{reference.name} has mean and covariance only: {name} needs its images; give those as --reference"
    if metric.logits and not space.classes:
        return f"{name} needs class probabilities, and {space.name} has none: {leave}"
    if metric.by_class and not (samples.class_names and reference.class_names):
        return f"{name} needs classes in samples and reference: {leave}"
    if metric.names_classes and not (space.names_classes and samples.class_names):
        return f"{name} needs samples with classes, and --features classifier: {leave}"
    return too_few(name, protocol, samples, reference)


def too_few(name: str, protocol: Protocol, samples: Facts, reference: Facts) -> str | None:
    """Why a metric cannot be had of so few samples, or of a reference with so few images; None if it can."""
    metric = METRICS[name]
    for side in (samples, reference) if metric.rows and reference.images else (samples,):
        if side.images < (fewest := metric.fewest(protocol)):
            return (
                f"{name} needs at least {fewest} images, {side.name} has {side.images}: "
                f"use more, or leave {name} out of --metrics"
            )
    return None


def check_possible(protocol: Protocol, space: FeatureSpace, samples: Facts, reference: Facts) -> None:
    """Raise UserError for a metric that cannot be had, or whose package is missing."""
    for name, metric in protocol.wanted.items():
        if metric.package:
            need(metric.package, name, "eval")
        reason = obstacle(name, protocol, space, samples, reference)
        if reason:
            raise UserError(reason)


def applicable(protocol: Protocol, space: FeatureSpace, samples: Facts, reference: Facts) -> tuple[str, ...]:
    """All metrics that can be had, but those by class only where the features are few."""
    return tuple(
        name
        for name, metric in METRICS.items()
        if not obstacle(name, protocol, space, samples, reference)
        and (space.names_classes or not metric.by_class)
        and (reference.class_names or not metric.names_classes)
    )


def numbered(names: tuple[str, ...]) -> bool:
    """Whether classes have numbers for names, or none."""
    return names == tuple(map(str, range(len(names))))
