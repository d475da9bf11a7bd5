"""Measure samples against a reference by a protocol. The command line and the trainer both call `evaluate`."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

from catgan.errors import UserError
from catgan.evaluation.classifier import Classifier
from catgan.evaluation.collect import Keep, Work, collect
from catgan.evaluation.features import FeatureSpace
from catgan.evaluation.metrics import check_possible, measured
from catgan.evaluation.protocol import ROUNDING, Protocol, Result, versions
from catgan.evaluation.reference import Reference
from catgan.evaluation.sources import Generated, Source


def evaluate(
    source: Source,
    reference: Reference,
    space: FeatureSpace,
    protocol: Protocol,
    work: Work,
    folder: Path | None = None,
) -> Result:
    """Measure a source against a reference.

    folder: for unfinished work, see `collect`. Every process returns the same result. Raises UserError for metrics
    that cannot be had, and for more broken files than the share work.max_broken.
    """
    if not isinstance(source, Generated):
        protocol = protocol.of_given_images(len(source))
    protocol.check()
    labelled = bool(source.class_names)
    check_possible(protocol, space, reference, labelled)
    by_class = {"class_distance", "recognised"} & set(protocol.metrics)
    classes = max(len(reference.by_class), space.classes if space.names_classes else 0) if by_class else 0
    if classes and len(source.class_names) > classes:
        raise UserError(
            f"{source.name} has {len(source.class_names)} classes, the reference {classes}: must be as many, or leave "
            "class_distance and recognised out of --metrics"
        )
    keep = Keep(len(source) if protocol.rows_kept else 0, "score" in protocol.metrics, classes)
    began = time.monotonic()
    found = collect(source, space, keep, work, folder)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        numbers = measured(found, reference, protocol)
    notes = list(dict.fromkeys(str(w.message) for w in said if issubclass(w.category, UserWarning)))
    for name, broken in ((source.name, found.broken), (reference.name, reference.broken)):
        if broken:
            notes.append(f"{len(broken)} files of {name} could not be read and were left out: {'; '.join(broken[:5])}")
    about = describe(source, reference, space, found.moments.count)
    step = source.pipe.step if isinstance(source, Generated) else 0
    return Result(numbers, protocol, about, time.monotonic() - began, notes, step)


def describe(source: Source, reference: Reference, space: FeatureSpace, count: int) -> dict[str, Any]:
    """What was compared, for the record."""
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
        about |= {"decoder": decoder, "rounding": ROUNDING}
    return about
