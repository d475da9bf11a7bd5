"""`catgan interpolate RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catgan.bounds import AtLeast2, Count, Psi
from catgan.cli.options import PictureOptions
from catgan.cli.parse import parse
from catgan.errors import UserError, require

if TYPE_CHECKING:
    from torch import Tensor

DESCRIPTION = """Walk in a straight line between samples in style space (w), within a class and between classes.

Each point is CLASS:SEED, or FILE:ROW of a file of styles (catgan invert). Writes strip.png, a row per leg of the walk, and
walk.gif, which goes there and back.

  catgan interpolate runs/digits --points 3:0 3:1 8:1
"""


@dataclass(frozen=True)
class InterpolateOptions(PictureOptions):
    points: tuple[str, ...] = ()
    """Where to walk, as CLASS:SEED or FILE:ROW; default: two seeds of the first class, then other classes."""
    frames: AtLeast2 = 10
    """Pictures per leg, both ends included."""
    psi: Psi = 1.0
    """Truncation of the end points."""
    milliseconds: Count = 80
    """How long the GIF shows a picture."""
    out: Path = Path("interpolation")
    """Folder to write to."""


def main(argv: Sequence[str]) -> None:
    o = parse(InterpolateOptions, argv, "interpolate", description=DESCRIPTION)
    pipe = o.load()
    count = pipe.config.sample.classes
    points = o.points or ("0:0", "0:1", *(f"{k * count // 4}:{k}" for k in range(1, 4) if count > 1))
    if len(points) < 2:
        raise UserError(f"--points is {' '.join(points)}: must be at least two")

    import torch

    from catgan.images import gif, grid, save_png, tile_zoom
    from catgan.sampling.styles import read_styles
    from catgan.sampling.walks import walk
    from catgan.system.files import unused, write_bytes

    named = [split(point) for point in points]
    files = {name: read_styles(name, pipe)[0] for name in {n for n, _ in named if n.endswith(".safetensors")}}
    ends = torch.cat([row(name, n, files[name]) if name in files else pipe.style(name, n, o.psi) for name, n in named])
    pixels = pipe(w=walk(ends, o.frames)).array
    zoom = tile_zoom(pixels.shape[1])
    legs = [list(pixels[i : i + o.frames]) for i in range(0, len(pixels), o.frames)]
    strip, animation = unused(o.out, ("strip.png", "walk.gif"))
    save_png(grid(legs, zoom), strip)
    write_bytes(animation, gif(list(pixels), o.milliseconds, zoom))
    print(f"{strip}\n{animation}")


def split(point: str) -> tuple[str, int]:
    """CLASS:SEED or FILE:ROW; the class may be a name."""
    name, _, number = point.rpartition(":")
    if not name or not number.isdecimal():
        raise UserError(f"point is {point}: must be CLASS:SEED, like 3:0, or FILE:ROW")
    return name, int(number)


def row(name: str, number: int, w: Tensor) -> Tensor:
    """One of the styles (n, d) of a file, which psi leaves alone: (1, d). Raises UserError if it has no such row."""
    require(number < len(w), f"row of {name}", number, f"0 to {len(w) - 1}")
    return w[number : number + 1]
