"""`catgan.evaluate`: samples against real images, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from catgan.evaluation import opening
from catgan.evaluation.collect import Work
from catgan.evaluation.evaluator import Facts
from catgan.evaluation.protocol import Protocol, Result
from catgan.metrics import Features
from catgan.sampling.pipeline import CATPipeline
from catgan.system.devices import pick_device


def evaluate(
    samples: opening.Images | CATPipeline,
    /,
    reference: opening.Images | None = None,
    *,
    features: Features | Literal["auto"] = "auto",
    metrics: Sequence[str] = (),
    device: str = "auto",
    batch: int = 64,
    feature_weights: str | None = None,
    quiet: bool = True,
    **protocol: Any,
) -> Result:
    """Measure samples against real images: `result.metrics`, `print(result.table())`.

    samples: a pipeline; or a run, a checkpoint, an exported model, a folder of images, an .npz or a data set, by name;
    or a dataset or image source of one's own. reference: real images in any of these forms, or an .npz with mu and
    sigma; None is what the generator was trained on. features: auto is inception, or for small or grey ones
    classifier, or pixels where the real images have no classes. metrics: names in `catgan.metrics.METRICS`; none are all
    that are possible. protocol: other fields of `catgan.evaluation.protocol.Protocol`, as samples=10_000 or psi=0.9.
    Raises UserError for what cannot be measured.
    """
    if isinstance(samples, CATPipeline):
        protocol |= {"weights": samples.weights, "precision": samples.precision}
    asked = Protocol(metrics=tuple(metrics), **protocol).check()
    chosen = pick_device(device)
    source = opening.open_samples(samples, asked, str(chosen))
    real = opening.open_real(reference, source)
    asked = replace(asked, features=opening.fitting_features(source, real) if features == "auto" else features)
    work = Work(batch, quiet=quiet)
    return opening.open_evaluator(real, Facts.of(source), asked, work, chosen, feature_weights).measure(source)
