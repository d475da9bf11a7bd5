"""`catgan diagnose RUN`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from catgan.bounds import Count
from catgan.cli.options import RunOptions
from catgan.cli.parse import parse
from catgan.errors import UserError
from catgan.system.packages import installed

if TYPE_CHECKING:
    from catgan.data import Dataset
    from catgan.evaluation.attention import CrossScaleAttention
    from catgan.sampling.pipeline import CATPipeline

DESCRIPTION = """Measure cross-scale alignment (paper equation 1) on fixed classes and seeds.

delta: distance of stage k to the final image; floor: what coarse resolution alone would cost of it; excess: the
difference; R: how much the next stage rewrites; A: whether it rewrites towards the final image (1 for the last).
Writes diagnosis.json and diagnosis.png; with --attention also attention.json and attention.png.
"""


@dataclass(frozen=True)
class DiagnoseOptions(RunOptions):
    samples: Count = 1000
    """Samples to measure: seeds 0, 1, ..., classes in turn."""
    batch: Count = 250
    """Samples per forward pass."""
    attention: bool = False
    """Also measure the share of attention that the discriminator's tokens of each scale put on each scale, per layer
    (paper figure 9), on generated samples and on as many real ones."""
    json: bool = False
    """Print the JSON instead of the table."""
    out: Path | None = None
    """Folder to write to; default: diagnosis in the run directory, beside the checkpoint, or here for a shipped model."""


def main(argv: Sequence[str]) -> None:
    o = parse(DiagnoseOptions, argv, "diagnose", description=DESCRIPTION)

    from catgan.checkpoint.export import found
    from catgan.checkpoint.reading import is_checkpoint
    from catgan.evaluation.alignment import diagnose_pipeline
    from catgan.report.plots import plot_alignment, plot_attention
    from catgan.system.files import write_bytes, write_text

    # Once: a run that still trains must not write the next checkpoint between the reading of its two networks.
    source = found(o.run)
    place = Path() if not o.run.exists() else o.run.parent if is_checkpoint(o.run) else o.run
    out, o = o.out or place / "diagnosis", replace(o, run=source)
    pipe = o.load()
    attention = measure_attention(o, pipe) if o.attention else None  # first: not every discriminator has one
    result = diagnose_pipeline(pipe, o.samples, o.batch)
    plots = installed("matplotlib")
    written = {"diagnosis.json": result.to_dict()}
    pictures = {"diagnosis.png": plot_alignment(result)} if plots else {}
    if attention is not None:
        written["attention.json"] = attention.to_dict()
        pictures |= {"attention.png": plot_attention(attention)} if plots else {}
    for name, measured in written.items():
        write_text(out / name, json.dumps(measured, indent=2) + "\n")
    for name, picture in pictures.items():
        write_bytes(out / name, picture)
    if o.json:
        both = result.to_dict() | ({} if attention is None else {"attention": attention.to_dict()})
        print(json.dumps(both, indent=2))
        return
    print(f"{pipe.config.recipe}, step {pipe.step}, {o.weights} weights, {o.samples} samples\n")
    print(result.table(), end="\n\n")
    if attention is not None:
        print(attention.table(), end="\n\n")
    for name in (*written, *pictures):
        print(out / name)
    if not plots:
        print("no plot: pip install 'catgan[plots]'")


def measure_attention(o: DiagnoseOptions, pipe: CATPipeline) -> CrossScaleAttention:
    """The discriminator of the same checkpoint, on generated samples, and on real ones if the run's data is there."""
    from catgan.evaluation.attention import diagnose_attention
    from catgan.sampling.pipeline import load_discriminator

    dataset: Dataset | None
    try:
        dataset = pipe.open_data()
    except UserError as error:
        dataset = None
        print(f"attention on generated samples only, the data of the run cannot be used: {error}", file=sys.stderr)
    return diagnose_attention(pipe, load_discriminator(o.run), dataset, o.samples, o.batch)
