"""`catgan diagnose RUN`."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from catgan.cli.options import RunOptions
from catgan.cli.parse import parse
from catgan.errors import UserError

DESCRIPTION = """Measure cross-scale alignment (paper equation 1) on fixed classes and seeds.

delta: distance of stage k to the final image; floor: what coarse resolution alone would cost of it; excess: the
difference; R: how much the next stage rewrites; A: whether it rewrites towards the final image (1 for the last).
Writes diagnosis.json and diagnosis.png.
"""


@dataclass(frozen=True)
class DiagnoseOptions(RunOptions):
    samples: int = 1000
    """Samples to measure: seeds 0, 1, ..., classes in turn."""
    batch: int = 250
    """Samples per forward pass."""
    json: bool = False
    """Print the JSON instead of the table."""
    out: Path | None = None
    """Folder to write to; default: diagnosis in the run directory, or beside the checkpoint file."""


def main(argv: Sequence[str]) -> None:
    o = parse(DiagnoseOptions, argv, "diagnose", description=DESCRIPTION)
    for name, value in (("--samples", o.samples), ("--batch", o.batch)):
        if value < 1:
            raise UserError(f"{name} is {value}: must be at least 1")
    pipe = o.load()

    from catgan.evaluation.alignment import diagnose_pipeline
    from catgan.evaluation.plots import plot_alignment
    from catgan.files import write_bytes, write_text

    result = diagnose_pipeline(pipe, o.samples, o.batch, {"weights": o.weights})
    text = json.dumps(result.to_dict(), indent=2)
    out = o.out or (o.run if o.run.is_dir() else o.run.parent) / "diagnosis"
    picture = plot_alignment(result) if importlib.util.find_spec("matplotlib") else None
    write_text(out / "diagnosis.json", text + "\n")
    if picture is not None:
        write_bytes(out / "diagnosis.png", picture)
    if o.json:
        print(text)
        return
    print(f"{pipe.config.recipe}, step {pipe.step}, {o.weights} weights, {o.samples} samples\n")
    print(result.table())
    print(f"\n{out / 'diagnosis.json'}")
    print(out / "diagnosis.png" if picture is not None else "no plot: pip install 'catgan[plots]'")
