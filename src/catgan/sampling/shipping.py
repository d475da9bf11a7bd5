"""From a run to a folder of weights that come with the package, and the golden samples by which the two must agree."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from catgan.checkpoint.export import write_export
from catgan.checkpoint.manifest import Header
from catgan.checkpoint.publishing import completed
from catgan.errors import UserError
from catgan.images import png, to_bytes, to_picture, visible
from catgan.sampling.pipeline import CATPipeline, load, load_discriminator
from catgan.shipped import ABOUT, FORMAT, PICTURES, Golden
from catgan.system.files import delete_folder, discard

TOLERANCE = 2  # 8-bit levels
COMPARED = 1000  # samples, of which the largest difference that rounding makes is told


def golden_of(pipe: CATPipeline) -> Golden:
    """Up to ten classes, spread evenly, each with a seed of its own, without truncation and with."""
    last = pipe.config.sample.classes - 1
    classes = tuple(sorted({round(i * last / 9) for i in range(10)}))
    return Golden(classes, tuple(range(len(classes))), (1.0, 0.7), TOLERANCE)


def golden_pictures(pipe: CATPipeline, golden: Golden) -> np.ndarray:
    """uint8 (rows * S, classes * S, 1 or 3): the samples without gaps, a row per psi. Latents are shown, not decoded."""
    rows = [to_bytes(visible(pipe(golden.classes, golden.seeds, psi=psi).latents)) for psi in golden.psi]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def stored_pictures(folder: Path) -> np.ndarray:
    """The golden pictures of a shipped folder, as `golden_pictures` gives them."""
    with Image.open(folder / PICTURES) as picture:
        pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def levels(a: np.ndarray, b: np.ndarray) -> int:
    """Largest difference of two uint8 arrays of a shape."""
    return int(np.abs(a.astype(np.int16) - b).max())


def check_golden(pipe: CATPipeline, golden: Golden, pictures: np.ndarray) -> None:
    """Raise UserError unless a generator gives the golden pictures within their tolerance."""
    made = golden_pictures(pipe, golden)
    if made.shape != pictures.shape or (found := levels(made, pictures)) > golden.tolerance:
        what = f"by {found} of 255 levels" if made.shape == pictures.shape else "in size"
        raise UserError(f"golden samples differ {what}: must be at most {golden.tolerance}; these are other weights")


def ship(
    run: Path, out: Path, licence: str, trained_on: str, evaluations: list[dict[str, Any]], record: dict[str, Any],
    half: bool = True,
) -> Path:  # fmt: skip
    """Make the folder of a shipped model from a run, in place of what is at `out`, and return its path.

    half: weights in float16. evaluations, record: see `catgan.shipped.Shipped`. Raises UserError, and leaves what was
    there, if the weights as they are stored do not give the run's golden samples.
    """
    pipe = load(run)
    assert pipe.source is not None
    header = Header(pipe.step, pipe.config, pipe.class_names, (), pipe.step * pipe.config.training.batch)
    golden = golden_of(pipe)
    pictures = golden_pictures(pipe, golden)
    aside = out.with_name(f".{out.name}.new")
    discard(aside)
    try:
        write_export(aside, header, pipe.generator, load_discriminator(pipe.source), pipe.run, half, out.name)
        card = (aside / "README.md").read_text("utf-8")
        (aside / "README.md").write_text(completed(card, out.name, licence, trained_on), "utf-8")
        (aside / PICTURES).write_bytes(png(to_picture(pictures)))
        stored = load(aside)
        check_golden(stored, golden, stored_pictures(aside))
        changed = difference(pipe, stored)
        if changed > golden.tolerance:
            raise UserError(
                f"stored weights change samples by {changed} of 255 levels: store them with --precision float32"
            )
        weights = {"precision": "float16" if half else "float32", "difference": changed}
        content = {
            "format": FORMAT, "licence": licence, "trained_on": trained_on, "evaluations": evaluations, "record": record,
            "weights": weights | {"compared": COMPARED}, "golden": asdict(golden),
        }  # fmt: skip
        (aside / ABOUT).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
        if out.exists():
            delete_folder(out)
        os.replace(aside, out)
    finally:
        discard(aside)
    return out


def difference(a: CATPipeline, b: CATPipeline) -> int:
    """Largest difference of the samples of two generators, in 8-bit levels: seeds 0, 1, ..., classes in turn, psi = 1."""
    classes, seeds = [i % a.config.sample.classes for i in range(COMPARED)], range(COMPARED)
    first, second = (to_bytes(visible(pipe(classes, seeds).latents)) for pipe in (a, b))
    return levels(first, second)
