"""Stream images through a feature space, and keep of them only what the metrics need.

The images are divided into at most 64 chunks, whatever the number of processes. A chunk is the unit of everything: a
process takes every `world`-th one, each finished chunk is a file, an interrupted evaluation goes on with those that are
missing, and they are merged in their order. So several processes, and an interrupted one, give the same numbers as one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from catgan.errors import UserError
from catgan.evaluation.distances import Distances
from catgan.evaluation.features import FeatureSpace
from catgan.evaluation.frechet import Moments
from catgan.evaluation.sources import ImageSource, with_channels
from catgan.system.devices import tensor_float32
from catgan.system.files import save_tensors, write_atomically
from catgan.system.pieces import unfinished
from catgan.system.processes import Processes
from catgan.system.progress import Progress

CHUNKS, SMALLEST_CHUNK = 64, 1024
LARGEST_CLASS_MOMENTS = 512 * 2**20  # bytes


@dataclass(frozen=True)
class Keep:
    """What to remember besides count, mean and covariance."""

    features: int = 0  # of so many images, evenly spread
    logits: bool = False
    classes: int = 0  # moments of each of so many classes, and how many images the classifier knows


@dataclass(frozen=True)
class Work:
    """How images are gone through: nothing here changes the numbers, up to rounding."""

    batch: int = 64  # images at a time
    processes: Processes = field(default_factory=Processes)  # who share the work
    max_broken: float = 0.0  # share of files that may be unreadable
    quiet: bool = True


@dataclass
class Collected:
    """What is known of a set of images in a feature space."""

    moments: Moments
    features: Tensor | None = None  # (n, dim), float32
    logits: Tensor | None = None  # (n, classes), float32
    by_class: list[Moments] = field(default_factory=list)
    correct: int = 0  # images whose class the feature space's classifier names
    labelled: int = 0
    broken: list[str] = field(default_factory=list)
    distances: Distances | None = None  # to the reference's images, once the metric authenticity has computed them

    def add(self, other: Collected) -> None:
        """Take in what is summed up; features and logits are put together by `merged`."""
        self.moments.add(other.moments)
        for mine, theirs in zip(self.by_class, other.by_class, strict=True):
            mine.add(theirs)
        self.correct += other.correct
        self.labelled += other.labelled
        self.broken += other.broken


def empty(space: FeatureSpace, keep: Keep, device: torch.device | str = "cpu") -> Collected:
    return Collected(
        Moments.zero(space.dim, device), by_class=[Moments.zero(space.dim, device) for _ in range(keep.classes)]
    )


def collect(
    source: ImageSource,
    space: FeatureSpace,
    keep: Keep,
    work: Work,
    folder: Path | None = None,
    classes: Sequence[int] = (),
) -> Collected:
    """All images of a source through a feature space.

    classes: what the reference calls each class of the source; none: the same.
    folder: where finished chunks go, so that an interrupted call goes on and several processes share the work; it
    must belong to this source, space and keep alone. Every process returns the same. Raises UserError when more than
    the share work.max_broken of the files cannot be read.
    """
    processes = work.processes
    check_room(space, keep)
    size = max(SMALLEST_CHUNK, -(-len(source) // CHUNKS))
    chunks = [(start, min(start + size, len(source))) for start in range(0, len(source), size)]
    paths = [folder / f"chunk-{i:02}.safetensors" for i in range(len(chunks))] if folder else []
    mine = unfinished(len(chunks), processes, lambda i: is_whole(paths[i])) if folder else list(range(len(chunks)))
    todo = sum(b - a for a, b in (chunks[i] for i in mine))
    progress = Progress(0, todo, 1, source.name, quiet=work.quiet or not processes.first or not todo)
    parts = (one_chunk(source, space, keep, classes, chunks[i], work.batch, progress.advance) for i in mine)
    if folder:
        for i, part in zip(mine, parts, strict=True):
            write(paths[i], part)
        processes.wait()
        parts = (read(path) for path in paths)
    total = merged(parts, empty(space, keep))
    progress.close()
    check_count(total, source, work.max_broken)
    return total


def merged(parts: Iterable[Collected], total: Collected) -> Collected:
    """The chunks put together in their order, one at a time."""
    rows: list[Tensor] = []
    logits: list[Tensor] = []
    for part in parts:
        rows += [part.features] if part.features is not None else []
        logits += [part.logits] if part.logits is not None else []
        for m in (part.moments, *part.by_class):
            m.mean, m.scatter = m.mean.cpu(), m.scatter.cpu()
        total.add(part)
    total.features = torch.cat(rows) if rows else None
    total.logits = torch.cat(logits) if logits else None
    return total


def check_count(total: Collected, source: ImageSource, max_broken: float) -> None:
    """Raise UserError where too many files could not be read, or too few images are left."""
    if len(total.broken) > max_broken * len(source):
        raise UserError(
            f"{len(total.broken)} of {len(source)} files of {source.name} cannot be read (first: {total.broken[0]}): "
            f"at most a share of {max_broken:g} is allowed; mend or delete them, or raise --max-broken"
        )
    if total.moments.count < 2:
        raise UserError(f"{source.name} has {total.moments.count} images: at least 2 are needed")


def check_room(space: FeatureSpace, keep: Keep) -> None:
    needed = keep.classes * space.dim**2 * 8
    if needed > LARGEST_CLASS_MOMENTS:
        raise UserError(
            f"per-class distances of {keep.classes} classes in {space.dim} features need {needed / 2**30:.1f} GiB: "
            "leave class_distance out, or use --features classifier"
        )


@torch.no_grad()
def one_chunk(
    source: ImageSource,
    space: FeatureSpace,
    keep: Keep,
    classes: Sequence[int],
    chunk: tuple[int, int],
    batch: int,
    tick: Callable[[int], None],
) -> Collected:
    """What there is to know of images chunk[0]..chunk[1] - 1."""
    into = empty(space, keep, getattr(space, "device", "cpu"))
    known = len(source.broken)
    rows: list[Tensor] = []
    logits: list[Tensor] = []
    for start in range(chunk[0], chunk[1], batch):
        stop = min(start + batch, chunk[1])
        before = len(source.broken)
        images, y = source.read(start, stop)
        tick(stop - start)
        if not len(images):
            continue
        whole = len(source.broken) == before  # else rows are no longer those of start..stop - 1
        with tensor_float32(False):  # published distances are of float32 features
            x, scores = space(with_channels(images, space.channels, source.name))
        into.moments.add(Moments.of(x))
        if keep.features:
            wanted = kept_rows(start, stop, len(source), keep.features)
            rows.append(x[wanted].cpu() if whole else x.cpu()[: len(wanted)])
        if keep.logits and scores is not None:
            logits.append(scores.float().cpu())
        if keep.classes and y is not None:
            y = (torch.tensor(classes)[y] if classes else y).to(x.device)
            for k in y.unique().tolist():
                into.by_class[k].add(Moments.of(x[y == k]))
            if scores is not None and space.names_classes:
                into.correct += int((scores.argmax(1) == y).sum())
                into.labelled += len(y)
    into.features = torch.cat(rows) if rows else None
    into.logits = torch.cat(logits) if logits else None
    into.broken = source.broken[known:]
    return into


def kept_rows(start: int, stop: int, count: int, kept: int) -> list[int]:
    """Which of rows start..stop - 1 are among `kept` evenly spread ones of `count`, counted from start."""
    if kept >= count:
        return list(range(stop - start))
    first, last = -(-start * kept // count), -(-stop * kept // count)
    return [kept_row(i, count, kept) - start for i in range(first, last)]


def kept_row(i: int, count: int, kept: int) -> int:
    """The number of the i-th of `kept` evenly spread images of `count`; all are kept where there are no more."""
    return i if kept >= count else i * count // kept


# -- chunks as files -------------------------------------------------------------------------------------------------


def write(path: Path, part: Collected) -> None:
    tensors = {"mean": part.moments.mean, "scatter": part.moments.scatter}
    if part.by_class:
        tensors["class_mean"] = torch.stack([m.mean for m in part.by_class])
        tensors["class_scatter"] = torch.stack([m.scatter for m in part.by_class])
    tensors |= {n: t for n, t in (("features", part.features), ("logits", part.logits)) if t is not None}
    about = {
        "count": part.moments.count,
        "class_counts": [m.count for m in part.by_class],
        "correct": part.correct,
        "labelled": part.labelled,
        "broken": part.broken,
    }
    plain = {n: t.cpu().contiguous() for n, t in tensors.items()}
    write_atomically(path, lambda aside: save_tensors(aside, plain, {"catgan": json.dumps(about)}))


def read(path: Path) -> Collected:
    with safe_open(path, "pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["catgan"])
        # Copies: a tensor of the file would keep all of it mapped.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    means, scatters = tensors.get("class_mean", ()), tensors.get("class_scatter", ())
    return Collected(
        Moments(about["count"], tensors["mean"], tensors["scatter"]),
        tensors.get("features"),
        tensors.get("logits"),
        [Moments(*m) for m in zip(about["class_counts"], means, scatters, strict=True)],
        about["correct"],
        about["labelled"],
        about["broken"],
    )


def is_whole(path: Path) -> bool:
    """Whether a chunk's file is there and complete."""
    if not path.exists():
        return False
    try:
        with safe_open(path, "pt") as file:
            return "catgan" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False
