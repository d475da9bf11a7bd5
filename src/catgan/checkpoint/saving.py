"""Saving checkpoints in the background, by one process or by several together.

Each process takes a copy of its share of the tensors and goes on training, while a thread writes the copy to files,
flushes them and computes their checksums. When all are done the first process writes the manifest and gives the folder
its name: so a checkpoint under its name is complete, whenever processes or the machine die.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from catgan.checkpoint.manifest import MANIFEST, File, Header, Manifest, Place
from catgan.checkpoint.reading import is_sharded, local_rows
from catgan.errors import UserError, said_once
from catgan.system.files import aside_of, discard, flush, save_tensors, sha256, unwritable
from catgan.system.processes import Processes

T = TypeVar("T")


@dataclass(frozen=True)
class Piece:
    """Rows of a tensor, which one process writes."""

    rows: Tensor
    first: int  # the number of the first row
    shape: tuple[int, ...]  # of the whole tensor


@dataclass(frozen=True)
class Written:
    """A file that one process has written."""

    name: str
    file: File
    pieces: dict[str, tuple[int, tuple[int, ...]]]  # by tensor: number of the first row, shape of the whole


def share_of(tensors: Mapping[str, Tensor], processes: Processes) -> dict[str, Piece]:
    """What this process writes: its rows of sharded tensors, and an even share of the bytes of those that all have."""
    share: dict[str, Piece] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        rows, first = local_rows(tensor.detach())
        if not is_sharded(tensor):
            whole[name] = rows
        elif rows.numel():
            share[name] = Piece(rows, first, tuple(tensor.shape))
    loads = [(0, rank) for rank in range(processes.world)]
    for name in sorted(whole, key=lambda n: (-whole[n].nbytes, n)):
        load, rank = heapq.heappop(loads)
        heapq.heappush(loads, (load + whole[name].nbytes, rank))
        if rank == processes.rank:
            share[name] = Piece(whole[name], 0, tuple(whole[name].shape))
    return share


class Saver:
    """Saves one checkpoint at a time. All processes must make it, and call `save` and `wait`, at the same places."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.group: Any = None  # of its own: the thread talks while training does
        if processes.several:
            self.group = processes.group("saving")
        self.copies: dict[str, Tensor] = {}  # kept: to take fresh memory costs many times what copying does
        self.thread: Thread | None = None
        self.error: BaseException | None = None

    def save(
        self, path: Path, tensors: Mapping[str, Tensor], header: Header, done: Callable[[], None] | None = None
    ) -> None:
        """Copy the tensors as they are now, and write them to the folder `path` in the background.

        done: called in the thread of each process when the checkpoint is complete. Waits for the one before, and raises
        what went wrong with it.
        """
        self.wait()
        pieces: dict[str, Piece] = {}

        def begin() -> None:
            if self.processes.first:
                discard(aside_of(path))
                aside_of(path).mkdir(parents=True)
            pieces.update(self.copied(share_of(tensors, self.processes)))

        self.together(path, begin)
        rest = (path, pieces, header, done or (lambda: None))
        # Not to be waited for at the end of the program, once `settle` has given it up.
        self.thread = Thread(target=self.work, args=rest, name="checkpoint", daemon=True)
        self.thread.start()

    def settle(self, patience: float | None = None) -> None:
        """Until nothing is being written, for good or bad, or for so many seconds: other processes may never come."""
        if self.thread is not None:
            self.thread.join(patience)
            self.thread = None

    def wait(self) -> None:
        """Until nothing is being written. Raises what went wrong: UserError where the disk is full, in all processes."""
        self.settle()
        error, self.error = self.error, None
        if error is not None:
            raise error

    def together(self, path: Path, work: Callable[[], T]) -> list[T]:
        """Let every process do its work for the checkpoint at `path`; the results of all, in the order of their ranks.

        Raises UserError in all processes if one of them fails, RuntimeError if one is gone.
        """
        result: Any = None
        error: Exception | None = None
        try:
            result = work()
        except (OSError, SafetensorError) as failure:
            error = unwritable(path, failure)
        except Exception as failure:
            error = failure
        if self.group is None:
            if error is not None:
                raise error
            return [result]
        import torch.distributed as dist

        answers: list[Any] = [None] * self.processes.world
        said = None if error is None else str(error) if isinstance(error, UserError) else repr(error)
        try:
            dist.all_gather_object(answers, (result, said), group=self.group)
        except RuntimeError as failure:
            raise RuntimeError(f"cannot write {path}: the connection to another process is lost ({failure})") from error
        with said_once():
            for rank, (_, fault) in enumerate(answers):
                if fault is not None:
                    raise UserError(f"process {rank}: {fault}") from error
        return [answer for answer, _ in answers]

    # -- in the background ---------------------------------------------------------------------------------------------

    def work(self, path: Path, pieces: dict[str, Piece], header: Header, done: Callable[[], None]) -> None:
        aside = aside_of(path)
        try:
            written = self.together(path, lambda: write_files(aside, pieces, self.processes.rank))
            files = [file for part in written for file in part]
            self.together(path, lambda: publish(aside, path, header, files) if self.processes.first else None)
            self.together(path, done)
        except BaseException as error:
            self.error = error
            if self.processes.first:
                discard(aside)

    def copied(self, share: Mapping[str, Piece]) -> dict[str, Piece]:
        """The pieces in memory of their own, on the CPU."""
        known, self.copies = self.copies, {}
        for name, piece in share.items():
            copy, rows = known.get(name), piece.rows
            if copy is None or (copy.shape, copy.dtype) != (rows.shape, rows.dtype):
                copy = torch.empty(rows.shape, dtype=rows.dtype)
            self.copies[name] = copy.copy_(rows)
        return {name: Piece(self.copies[name], piece.first, piece.shape) for name, piece in share.items()}


def write_files(folder: Path, pieces: Mapping[str, Piece], rank: int) -> list[Written]:
    """A file for each group of tensors (the first part of their names), flushed to the disk."""
    groups: dict[str, dict[str, Piece]] = {}
    for name, piece in pieces.items():
        groups.setdefault(name.partition(".")[0], {})[name] = piece
    written = []
    for group, members in groups.items():
        path = folder / f"{group}-{rank:05d}.safetensors"
        save_tensors(path, {name: piece.rows for name, piece in members.items()})
        flush(path)
        places = {name: (piece.first, piece.shape) for name, piece in members.items()}
        written.append(Written(path.name, File(path.stat().st_size, sha256(path)), places))
    return written


def publish(aside: Path, path: Path, header: Header, written: list[Written]) -> None:
    """Complete the folder `aside` by its manifest and call it `path`, in place of a checkpoint that has this name."""
    parts: dict[str, list[tuple[int, str]]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in written:
        for name, (first, shape) in file.pieces.items():
            parts.setdefault(name, []).append((first, file.name))
            shapes[name] = shape
    places = {n: Place(shapes[n], tuple((file, first) for first, file in sorted(found))) for n, found in parts.items()}
    manifest = Manifest(header, {file.name: file.file for file in written}, places)
    (aside / MANIFEST).write_text(manifest.text(), "utf-8")
    flush(aside / MANIFEST)
    flush(aside)
    before = aside_of(path.with_name(f"{path.name}-before"))
    if path.exists():
        discard(before)
        os.replace(path, before)
    os.replace(aside, path)
    flush(path.parent)
    discard(before)
