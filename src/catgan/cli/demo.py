"""`catgan demo`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from catgan.cli.parse import parse
from catgan.config_io import load_yaml
from catgan.errors import UserError
from catgan.recipes import recipe
from catgan.system.packages import need

DESCRIPTION = """Train on handwritten digits from scratch, then sample, interpolate, diagnose, and build a page about it.

Takes minutes on two CPU cores and downloads nothing. Called again, it goes on where it stopped.
"""


@dataclass(frozen=True)
class DemoOptions:
    out: Path = Path("runs/demo")
    """Run directory; the page is index.html in it."""
    steps: int | None = None
    """Train for fewer or more steps than the recipe."""


def main(argv: Sequence[str]) -> None:
    o = parse(DemoOptions, argv, "demo", description=DESCRIPTION)
    stored = o.out / "config.yaml"
    resume = stored.exists()
    config = load_yaml(stored) if resume else recipe("digits")
    if (config.recipe, config.sample) != ("digits", recipe("digits").sample):
        raise UserError(f"{o.out} is a run of recipe {config.recipe} on other data or scales: choose another --out")
    if o.steps is not None:
        config = replace(config, training=replace(config.training, steps=o.steps))
    config.validate()
    for package in ("matplotlib", "sklearn"):
        need(package, "the demo", "demo")

    from catgan.data.datasets import digits
    from catgan.demo.measure import measure
    from catgan.demo.report import write_page
    from catgan.sampling.pipeline import load
    from catgan.system.files import write_text
    from catgan.training.run import train

    began = time.monotonic()
    train(config, o.out, resume=resume)
    seconds = None if resume else time.monotonic() - began
    pipe, real = load(o.out), digits()
    quality, x, y = measure(pipe, real)
    write_text(o.out / "quality.json", json.dumps(quality.to_dict(), indent=2) + "\n")
    index = o.out / "index.html"
    write_page(index, o.out, pipe, x, y, real, quality, seconds)
    print(
        f"class accuracy {quality.class_accuracy:.1%} on {quality.samples} samples ({quality.classifier_accuracy:.1%} on held-out real digits), "
        f"variety {quality.variety:.0%} of the real digits'\n\nOpen the page: {index.resolve()}"
    )
