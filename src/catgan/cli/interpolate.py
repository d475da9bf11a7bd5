"""`catgan interpolate RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from catgan.bounds import AtLeast2, Count, Psi
from catgan.cli.options import PictureOptions
from catgan.cli.parse import parse
from catgan.errors import UserError

DESCRIPTION = """Walk in a straight line between samples in style space (w), within a class and between classes.

Each point is CLASS:SEED. Writes strip.png, a row per leg of the walk, and walk.gif, which goes there and back.

  catgan interpolate runs/digits --points 3:0 3:1 8:1
"""


@dataclass(frozen=True)
class InterpolateOptions(PictureOptions):
    points: tuple[str, ...] = ()
    """Where to walk, as CLASS:SEED; default: two seeds of the first class, then other classes."""
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

    from catgan.images import gif, grid, save_png, tile_zoom
    from catgan.sampling.walks import walk
    from catgan.system.files import unused, write_bytes

    classes, seeds = zip(*(split(p) for p in points), strict=True)
    pixels = pipe(w=walk(pipe.style(classes, seeds, o.psi), o.frames)).array
    zoom = tile_zoom(pixels.shape[1])
    legs = [list(pixels[i : i + o.frames]) for i in range(0, len(pixels), o.frames)]
    strip, animation = unused(o.out, ("strip.png", "walk.gif"))
    save_png(grid(legs, zoom), strip)
    write_bytes(animation, gif(list(pixels), o.milliseconds, zoom))
    print(f"{strip}\n{animation}")


def split(point: str) -> tuple[str, int]:
    """CLASS:SEED; the class may be a name."""
    name, _, seed = point.rpartition(":")
    if not name or not seed.isdecimal():
        raise UserError(f"point is {point}: must be CLASS:SEED, like 3:0")
    return name, int(seed)
