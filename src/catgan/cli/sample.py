"""`catgan sample RUN`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from catgan.bounds import Count, Psi, check_seed
from catgan.cli.options import PictureOptions
from catgan.cli.parse import numbers, parse
from catgan.errors import UserError
from catgan.system.processes import Processes

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from catgan.sampling.pipeline import CATPipeline, Samples

DESCRIPTION = """Make images with a trained generator, in one forward pass each.

A grid has a column per class and a row per seed; if there is one already, the new one is grid-2.png. The .npz holds
--count samples, classes in turn, seeds from the first of --seeds on, as uint8 arrays arr_0 (N, S, S, C) and arr_1
(classes); an interrupted one goes on where it stopped. Under torchrun the processes share its work and write what one
would; the other formats are made by the first alone.

A sheet is what appendices show: the first seeds of each class as they come, with psi and seeds said below.

  catgan sample digits --sheet
  catgan sample digits --sheet --classes 8 --seeds 0-63 --psi 0.85
"""


@dataclass(frozen=True)
class SampleOptions(PictureOptions):
    classes: tuple[str, ...] = ()
    """Classes by number, range (3-7) or name; default: the first ten, or all for --format npz."""
    seeds: str = "0-7"
    """Seeds, as numbers and ranges: 0-7,42."""
    styles: Path | None = None
    """File of styles, as catgan invert writes it, in place of classes, seeds and psi."""
    psi: Psi = 1.0
    """Truncation: 1 is none, smaller is closer to each class's mean."""
    sheet: bool = False
    """A page of samples that nobody selected, in place of a grid: a row per class, or one class in a square."""
    stages: bool = False
    """Also save h_0..h_K of each sample, side by side."""
    format: Literal["grid", "png", "npz"] = "grid"
    """grid: one PNG; png: one PNG per sample; npz: one file for evaluators."""
    count: Count = 50_000
    """Samples of --format npz."""
    out: Path = Path("samples")
    """Folder to write to."""
    batch: Count = 64
    """Samples per forward pass."""
    labels: bool = True
    """Write classes and seeds beside grids."""


def main(argv: Sequence[str]) -> None:
    o = parse(SampleOptions, argv, "sample", description=DESCRIPTION)
    seeds = [check_seed(s) for s in numbers(o.seeds, "--seeds")]
    if o.sheet:
        if o.format != "grid" or o.stages:
            raise UserError(f"--sheet is a page of its own: leave out {'--stages' if o.stages else '--format'}")
        if seeds != list(range(len(seeds))):
            raise UserError(f"--seeds is {o.seeds}: a sheet shows the first seeds unselected, must be 0-N")
    if o.styles and (o.sheet or o.format == "npz" or o.classes or o.seeds != SampleOptions.seeds or o.psi != 1.0):
        raise UserError("--styles says what to sample: leave out --classes, --seeds, --psi, --sheet and --format npz")
    processes = Processes.from_environment()
    if o.format != "npz" and not processes.first:
        return
    pipe = replace(o, device=processes.device(o.device)).load()
    chosen = [k for c in o.classes for k in (numbers(c, "--classes") if re.fullmatch(r"\d+-\d+", c) else [c])]
    if o.format == "npz":
        from catgan.sampling.npz import sample_npz

        classes = pipe.class_numbers(chosen or list(range(pipe.config.sample.classes)))
        path = sample_npz(pipe, o.out / "samples.npz", classes, seeds[0], o.count, o.psi, o.batch, processes)
        processes.leave()
        if processes.first:
            print(path)
        return
    if o.styles:
        for path in save_styles(o, pipe, o.styles):
            print(path)
        return
    classes = pipe.class_numbers(chosen or list(range(min(10, pipe.config.sample.classes))))
    for path in [save_sheet(o, pipe, classes, seeds)] if o.sheet else save_pictures(o, pipe, classes, seeds):
        print(path)


def save_sheet(o: SampleOptions, pipe: CATPipeline, classes: list[int], seeds: list[int]) -> Path:
    """Write one picture of the samples of every class with every seed, and return its path: sheet-psi-1.png."""
    from catgan.images import captioned, save_png
    from catgan.sampling.showcase import sheet
    from catgan.system.files import unused

    one = len(classes) == 1
    made = pipe([c for c in classes for _ in seeds], seeds * len(classes), psi=o.psi, batch_size=o.batch).array
    names = [pipe.class_name(c) for c in classes]
    about = [pipe.config.recipe, f"step {pipe.step}", *([f"class {names[0]}"] if one else []), f"psi {o.psi:g}"]
    about += [f"seeds 0-{seeds[-1]}{' in rows' if one else ''}", "not selected"]
    (path,) = unused(o.out, [f"sheet-{f'class-{classes[0]}-' if one else ''}psi-{o.psi:g}.png"])
    save_png(captioned(sheet(made, names, seeds, o.labels), ", ".join(about)), path)
    return path


def save_pictures(o: SampleOptions, pipe: CATPipeline, classes: list[int], seeds: list[int]) -> list[Path]:
    """Sample every class with every seed and write the pictures, under new names. Returns their paths."""
    from catgan.images import to_picture

    made = pipe(
        [c for _ in seeds for c in classes],
        [s for s in seeds for _ in classes],
        psi=o.psi,
        stages=o.stages,
        batch_size=o.batch,
    )
    pixels, n, names = made.array, len(classes), [pipe.class_name(k) for k in classes]
    pictures = {}
    if o.format == "grid":
        tiles = [list(pixels[i : i + n]) for i in range(0, len(pixels), n)]
        pictures["grid"] = titled(o, tiles, names, [f"seed {s}" for s in seeds])
    else:
        pictures = {f"class-{classes[i % n]}-seed-{seeds[i // n]}": to_picture(p) for i, p in enumerate(pixels)}
    return saved(o, pictures, made, [f"{name}, seed {s}" for s in seeds for name in names])


def save_styles(o: SampleOptions, pipe: CATPipeline, path: Path) -> list[Path]:
    """Sample the styles of a file and write the pictures, under new names. Returns their paths."""
    from catgan.images import to_picture
    from catgan.sampling.styles import read_styles

    w, names = read_styles(path, pipe)
    made = pipe(w=w, stages=o.stages, batch_size=o.batch)
    if o.format == "grid":
        pictures = {"grid": titled(o, [[pixels] for pixels in made.array], [""], names)}
    else:
        pictures = {f"style-{i}": to_picture(pixels) for i, pixels in enumerate(made.array)}
    return saved(o, pictures, made, names)


def titled(
    o: SampleOptions, tiles: Sequence[Sequence[np.ndarray]], columns: Sequence[str], rows: Sequence[str]
) -> Image.Image:
    """A grid, with words beside it if they are asked for."""
    from catgan.images import grid, labelled, tile_zoom

    picture = grid(tiles, tile_zoom(tiles[0][0].shape[0]))
    return labelled(picture, columns, rows) if o.labels else picture


def saved(o: SampleOptions, pictures: dict[str, Image.Image], made: Samples, names: Sequence[str]) -> list[Path]:
    """Write pictures by name, and the stages of the samples called `names` if they were kept, under new names.

    Returns their paths.
    """
    from catgan.images import save_png
    from catgan.sampling.showcase import strips
    from catgan.system.files import unused

    if made.stages is not None:
        pictures["stages"] = strips(made.stage_array, names, o.labels)
    paths = unused(o.out, [f"{name}.png" for name in pictures])
    for picture, path in zip(pictures.values(), paths, strict=True):
        save_png(picture, path)
    return paths
