"""Weights that come with the package, by name: `recipe.tag`, or a recipe alone for its default tag.

Each is a folder here: what `catgan export` writes, with the discriminator, and beside it

shipped.json    licence, data, metrics with their protocols, how the weights came about, how they are stored
golden.png      pictures that the weights must give, made before they were rounded: classes side by side, a row per psi

`catgan ship` makes such a folder from a run (`catgan.sampling.shipping`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from catgan.errors import UserError
from catgan.system.files import read_json
from catgan.system.processes import Processes

FOLDER = Path(__file__).parent
ABOUT, PICTURES = "shipped.json", "golden.png"
FORMAT = 1  # of shipped.json
# What a recipe's name alone stands for. A tag tells what the weights were trained on: better ones of the same keep it.
DEFAULT_TAGS = {"digits": "sklearn", "fashion-mnist": "train"}


@dataclass(frozen=True)
class Golden:
    """Which pictures are fixed: each class with the seed below it, at every psi."""

    classes: tuple[int, ...]
    seeds: tuple[int, ...]
    psi: tuple[float, ...]
    tolerance: int  # largest difference that other machines' rounding may make, in 8-bit levels


@dataclass(frozen=True)
class Shipped:
    """What a shipped model says of itself."""

    name: str
    bytes: int  # of all its files
    licence: str
    trained_on: str  # name and origin of the data, and their licence
    evaluations: list[dict[str, Any]]  # as `catgan evaluate` writes them: metrics, names, protocol
    record: dict[str, Any]  # command, commit, seed, step, machine, versions
    weights: dict[str, Any]  # precision, and what its rounding changes in pictures
    golden: Golden


def names() -> list[str]:
    """Full names of all shipped models."""
    return sorted(path.parent.name for path in FOLDER.glob(f"[!.]*/{ABOUT}"))


def full_name(name: str) -> str | None:
    """`digits.sklearn` for `digits` and for itself; None for what is not shipped."""
    full = f"{name}.{DEFAULT_TAGS[name]}" if name in DEFAULT_TAGS else name
    return full if full in names() else None


def located(path: Path) -> Path:
    """The folder of a shipped model, if its name is what the path is; else the path.

    What lies at the path wins over a shipped model, and a line on stderr says so.
    """
    full = full_name(str(path))
    if full is None:
        return path
    if path.exists():
        say_once(f"{path} is the one in {Path.cwd()}, not the model {full} that comes with catgan")
        return path
    return FOLDER / full


@cache
def say_once(message: str) -> None:
    if Processes.from_environment().first:
        print(message, file=sys.stderr)


def choices(path: Path, others: Iterable[str] = ()) -> str:
    """For messages: which models are shipped, and which of them, of other names or of the folders beside the path was
    perhaps meant."""
    known = [*(name for name in DEFAULT_TAGS if full_name(name)), *names(), *others]
    beside = [str(p) for p in path.parent.glob("*") if p.is_dir()] if path.parent.is_dir() else []
    close = get_close_matches(str(path), [*known, *beside], 1)
    return f"a shipped model ({', '.join(names())})" + (f"; did you mean {close[0]}?" if close else "")


def about(name: str) -> Shipped:
    """What a shipped model of this full name says of itself. Raises UserError for one that is damaged or of another format."""
    folder = FOLDER / name
    content = read_json(folder / ABOUT)
    try:
        if (version := content.pop("format")) != FORMAT:
            raise UserError(f"{folder} has format {version}, this catgan reads {FORMAT}: use the version that made it")
        fixed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.pop("golden").items()}
        size = sum(file.stat().st_size for file in folder.iterdir())
        return Shipped(name=name, bytes=size, golden=Golden(**fixed), **content)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / ABOUT} is damaged: {error!r:.200}") from None
