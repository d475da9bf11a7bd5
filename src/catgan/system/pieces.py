"""Work in pieces: shared by processes that meet in files, and resumed after an interruption."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from catgan.errors import UserError
from catgan.system.files import discard
from catgan.system.lock import RunLock
from catgan.system.processes import Processes


def unfinished(count: int, processes: Processes, finished: Callable[[int], bool]) -> list[int]:
    """Those of pieces 0..count - 1 that this process is to do: of every N-th, with N processes, the unfinished ones."""
    return [k for k in range(processes.rank, count, processes.world) if not finished(k)]


def check_same(stored: Mapping[str, Any], wanted: Mapping[str, Any], what: str, todo: str) -> None:
    """Raise UserError for work that was begun with other settings. what, todo: begin and end of the message."""
    for name, value in wanted.items():
        if (found := stored.get(name)) != value:
            raise UserError(f"{what} with another {name} ({str(found)[:60]}, not {str(value)[:60]}): {todo}")


@contextlib.contextmanager
def work_folder(folder: Path, processes: Processes) -> Iterator[Path]:
    """A folder for finished pieces: no other run's meanwhile, left after an interruption, deleted when all is done.

    All processes call this together. Raises UserError if another run works there.
    """
    lock = RunLock(folder)
    processes.from_first(lock.take)
    try:
        yield folder
        processes.wait()
        if processes.first:
            discard(folder)
    finally:
        lock.release()
