"""`catgan invert RUN PICTURE...`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from catgan.bounds import Count
from catgan.cli.options import RunOptions
from catgan.cli.parse import parse
from catgan.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from catgan.sampling.inversion import Inversion
    from catgan.sampling.pipeline import CATPipeline

DESCRIPTION = """Project pictures into style space: find the w whose sample is nearest to each.

Writes strip.png (the picture, the best start, the way, what was found) and styles.safetensors, which `catgan sample
--styles` and `catgan interpolate --points` take. Says how near the sample is (PSNR): above 30 dB it is the picture, below
20 dB it merely resembles it. A generator knows what it was trained on; a face is no boot.

  catgan invert fashion-mnist boot.png sandal.jpg
  catgan interpolate fashion-mnist --points inversion/styles.safetensors:0 inversion/styles.safetensors:1
"""
POOR = 20.0  # dB


@dataclass(frozen=True)
class InvertOptions(RunOptions):
    pictures: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="PICTURE")] = ()
    """Picture files."""
    classes: tuple[str, ...] = ()
    """Classes to start from, by number or name; default: all."""
    steps: Count = 300
    """Steps of the descent, after a fifth as many from several starts."""
    starts: Count = 512
    """Samples among which the best are where to start."""
    crop: Literal["center", "resize"] = "center"
    """center: the middle square; resize: the whole picture, squeezed."""
    vae: str | None = None
    """VAE of a latent model: folder or Hugging Face name; default: the one its configuration names."""
    out: Path = Path("inversion")
    """Folder to write to."""


def main(argv: Sequence[str]) -> None:
    o = parse(InvertOptions, argv, "invert", description=DESCRIPTION)
    if not o.pictures:
        raise UserError("no pictures: catgan invert RUN PICTURE..., see catgan invert --help")
    pipe = o.load()
    if o.vae is not None:
        pipe.with_vae(o.vae)

    from catgan.sampling.inversion import invert, latents_of, own_discriminator, total_steps
    from catgan.sampling.styles import write_styles
    from catgan.system.files import unused
    from catgan.system.progress import Progress

    pictures = opened(o, pipe)
    discriminator = own_discriminator(pipe)
    progress = Progress(0, total_steps(o.steps), len(pictures), "projection")
    found = invert(
        pipe,
        latents_of(pipe, pictures),
        o.steps,
        o.starts,
        o.classes,
        discriminator,
        lambda done, h: progress.update(done),
    )
    progress.close()
    names = [path.name for path in o.pictures]
    strip, styles = unused(o.out, ("strip.png", "styles.safetensors"))
    save_strip(pipe, pictures, found, names, strip)
    write_styles(styles, pipe, found.w, names)
    print(f"{strip}\n{styles}")
    for name, psnr, began, (k, seed) in zip(names, found.psnr, found.start_psnr, found.starts, strict=True):
        doubt = "; it merely resembles the picture" if psnr < POOR else ""
        print(f"{name}: {psnr:.1f} dB, from {began:.1f} dB of class {pipe.class_name(k)}, seed {seed}{doubt}")
    print(f"next: catgan sample {shlex.quote(str(o.run))} --styles {shlex.quote(str(styles))} --stages")


def opened(o: InvertOptions, pipe: CATPipeline) -> Tensor:
    """The pictures as the model has them, (n, C, P, P) in [-1, 1]. Raises UserError for one that cannot be read."""
    import torch

    from catgan.data.decode import BrokenError
    from catgan.sampling.inversion import read_picture

    made = []
    for path in o.pictures:
        try:
            made.append(read_picture(pipe, path.read_bytes(), o.crop))
        except (OSError, BrokenError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"picture {path} cannot be read: {reason}") from None
    return torch.stack(made)


def save_strip(pipe: CATPipeline, pictures: Tensor, found: Inversion, names: Sequence[str], path: Path) -> None:
    """Write a row per picture: itself, the best start, samples on the way, what was found."""
    from catgan.images import grid, labelled, save_png, tile_zoom, to_bytes

    way = to_bytes(pipe.decode(found.frames))
    rows = [[target, *way[:, i]] for i, target in enumerate(to_bytes(pictures))]
    columns = ["picture", "start", *([""] * (len(way) - 2)), "found"]
    picture = grid(rows, tile_zoom(way.shape[2]))
    save_png(labelled(picture, columns, [f"{n} {p:.1f} dB" for n, p in zip(names, found.psnr, strict=True)]), path)
