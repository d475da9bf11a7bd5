"""The demo's page: samples beside real digits, stages, diagnostics over training, and the figures as measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from catgan.checkpoint.card import training_seconds
from catgan.data.datasets import Images
from catgan.demo.measure import Quality, nearest_rows
from catgan.evaluation.alignment import MEASURES, diagnose_pipeline
from catgan.images import gif, grid, png, to_bytes
from catgan.report import page
from catgan.report.records import Record, read_run
from catgan.report.sections import alignment_panels, loss_panels, stage_table
from catgan.sampling.pipeline import CATPipeline
from catgan.sampling.walks import walk
from catgan.system.files import write_text
from catgan.system.progress import clock

LOSSES = ("discriminator/adversarial", "generator/adversarial", "discriminator/r1")
COLUMNS = 8  # digits per class shown of each kind


def write_page(
    path: Path,
    run: Path,
    pipe: CATPipeline,
    x: Tensor,
    y: Tensor,
    real: Images,
    quality: Quality,
    seconds: float | None,
) -> None:
    """Write the page about a run. x, y: the measured samples; seconds: how long training took, if it was now."""
    record = read_run(run)
    about = record.about
    parts = [
        "<h1>Handwritten digits, one forward pass each</h1>",
        page.paragraph(
            "Trained from scratch on the 1,797 digits that scikit-learn ships (8x8 pixels), with a scale-wise discriminator and the "
            "consistency loss of CAT. Every picture below is from this run.",
            "lead",
        ),
        page.cards(figures(pipe, quality, record, seconds)),
        page.paragraph(
            "Class accuracy: share of samples in which a small network, trained on nine tenths of the real digits, sees the "
            f"class asked for; on the other tenth it is {quality.classifier_accuracy:.1%}. Variety: mean distance of two digits of a "
            f"class. Both on {quality.samples} samples "
            f"with psi = 1 and averaged weights. Machine: {about['machine']}, PyTorch {about['torch']}."
        ),
        *samples_section(x, y, real),
        *stages_section(pipe),
        *alignment_section(pipe, record),
        *copies_section(x, real, quality),
        *walk_section(pipe),
        page.heading("Losses"),
        page.paragraph("Every scale has its own loss and penalty."),
        page.panels(loss_panels(record, LOSSES), "three"),
        page.heading("Go on"),
        page.code(commands(run, pipe)),
    ]
    write_text(path, page.page("catgan: digits", parts))


def figures(pipe: CATPipeline, quality: Quality, record: Record, seconds: float | None) -> list[tuple[str, str]]:
    _, rates = record.points("images_per_second")
    batch = pipe.config.training.batch
    took = clock(training_seconds(record.rows, batch) if seconds is None else seconds)
    return [
        (f"{quality.class_accuracy:.1%}", "class accuracy"),
        (f"{quality.variety:.0%}", "variety within a class, of the real digits'"),
        (f"{quality.copies:.1%}", "copies of a training image"),
        (took, f"minutes of training, {pipe.step * batch:,} images"),
        (f"{np.median(rates):.0f}", "images per second, median"),
    ]


def tiles(rows: Sequence[Sequence[np.ndarray]], zoom: int, caption: str) -> str:
    return page.picture(png(grid(rows, zoom)), caption)


def samples_section(x: Tensor, y: Tensor, real: Images) -> list[str]:
    def sheet(images: Tensor, labels: Tensor, caption: str) -> str:
        pixels = to_bytes(images)
        return tiles([list(pixels[(labels == k).numpy()][:COLUMNS]) for k in range(10)], 6, caption)

    return [
        page.heading("Samples, beside real digits"),
        page.paragraph(
            "A row per class, not selected: the first seeds on the left, the first real digits on the right."
        ),
        page.row(sheet(x, y, "generated"), sheet(real.pixels, real.labels, "real")),
    ]


def stages_section(pipe: CATPipeline) -> list[str]:
    made = pipe(list(range(10)), list(range(10)), stages=True).stages
    assert made is not None
    pyramid = pipe.pyramid
    seen = torch.stack([pyramid.enlarge(v) for v in pyramid(made)])
    names = ", ".join(f"h_{k}" for k in range(len(made)))
    return [
        page.heading("Stages: one digit, coarse to fine"),
        page.paragraph(
            "A column per digit, a row per stage. The consistency loss makes all rows of a column the same digit. The discriminator "
            f"judges stage k at {', '.join(str(s) for s in pyramid.scales)} pixels."
        ),
        page.row(
            tiles([list(stage) for stage in to_bytes(made)], 5, f"as generated: {names}"),
            tiles([list(stage) for stage in to_bytes(seen)], 5, "as the discriminator sees them, enlarged"),
        ),
    ]


def alignment_section(pipe: CATPipeline, record: Record) -> list[str]:
    result = diagnose_pipeline(pipe)
    return [
        page.heading("Alignment of the stages over training"),
        page.paragraph(
            "The consistency loss should keep delta and R low, and A near 1. Averaged weights, 1,000 fixed samples."
        ),
        page.panels(alignment_panels(record, measures=("delta", "R", "A")), "three"),
        stage_table("at the end", {m: getattr(result, m) for m in MEASURES}),
    ]


def copies_section(x: Tensor, real: Images, quality: Quality) -> list[str]:
    chosen = x[:10]
    neighbours = nearest_rows(chosen, real, 4)
    sheet = [list(to_bytes(row)) for row in (chosen, *(real.pixels[rows] for rows in neighbours.T))]
    return [
        page.heading("Not copies"),
        page.paragraph(
            f"A generated digit is {quality.nearest:.2f} away from the nearest real one on average; a real digit is {quality.real_nearest:.2f} "
            "away from the nearest other real one (Euclidean, pixels in [-1, 1])."
        ),
        tiles(sheet, 5, "first row: generated; below each: its four nearest training images"),
    ]


def walk_section(pipe: CATPipeline) -> list[str]:
    ends = pipe.style([3, 3, 8, 0, 6], [0, 1, 2, 3, 4])
    frames = 10
    pixels = pipe(w=walk(ends, frames)).array
    legs = [list(pixels[i : i + frames]) for i in range(0, len(pixels), frames)]
    return [
        page.heading("Walking through style space"),
        page.row(
            tiles(legs, 5, "rows: two threes, then 3 to 8, 8 to 0, 0 to 6"),
            page.picture(gif(list(pixels), 80, 20), "the same as an animation"),
        ),
    ]


def commands(run: Path, pipe: CATPipeline) -> str:
    more = pipe.config.training.steps * 2
    return f"""# more samples: fives and eights, with truncation
catgan sample {run} --classes 5 8 --seeds 0-19 --psi 0.8 --out samples

# walk from one three to another, then to an eight
catgan interpolate {run} --points 3:0 3:1 8:2 --out interpolation

# train twice as long
catgan train digits --out {run} --resume --steps {more}

# without the consistency loss: watch the stages drift apart
catgan train digits --out runs/no-consistency --objective.consistency 0

# curves
tensorboard --logdir {run}

# in Python
import catgan
pipe = catgan.load("{run}")
pipe(classes=[3], seeds=[0], psi=0.85).images[0].resize((256, 256), 0).show()"""
