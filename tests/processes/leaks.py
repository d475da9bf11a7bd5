"""What tests may leave behind: processes, threads that hold the program up, shared memory, temporary files."""

from __future__ import annotations

import gc
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

MARK = "CATGAN_TESTS"  # an environment variable, which what the tests start inherits, also when nobody waits for it
SHARED = Path("/dev/shm")  # semaphores too
HELPERS = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")  # of Python; they end with the program
# Folders for sockets, which Python takes away when it ends; the last folders of a pytest in a test; torchrun's own, when it
# is killed.
KEPT = ("pymp-", "pytest-of-", "torchelastic_")
OLD_TORCH = "_remote_module_non_scriptable.py"  # PyTorch 2.9 makes a folder with it, which it removes when it ends
PATIENCE = 15.0  # seconds that what was told to end may take


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Raises AssertionError for what is left at the end. folder: an empty one, for temporary files meanwhile."""
    mark, threads, shared = uuid4().hex, set(threading.enumerate()), listed(SHARED)
    kept = Path(tempfile.gettempdir()) / "torchinductor"  # what is compiled serves later sessions too
    before = tempfile.tempdir
    os.environ |= {MARK: mark, "TMPDIR": str(folder)}
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kept))
    tempfile.tempdir = str(folder)
    try:
        yield
        end = time.monotonic() + PATIENCE
        while found := left(mark, threads, shared, folder):
            assert time.monotonic() < end, f"the tests left {found}"
            time.sleep(0.5)
    finally:
        tempfile.tempdir = before


def left(mark: str, threads: set[threading.Thread], shared: set[str], folder: Path) -> dict[str, list[str]]:
    """What there is beyond what was there before, by kind."""
    gc.collect()
    found = {
        "processes": processes(mark),
        "threads": [t.name for t in set(threading.enumerate()) - threads if not t.daemon],
        "shared memory": sorted(
            name for name in listed(SHARED) - shared if not others(name) and not in_use(SHARED / name)
        ),
        "temporary files": sorted(
            name for name in listed(folder) if not name.startswith(KEPT) and not (folder / name / OLD_TORCH).exists()
        ),
    }
    return {kind: names for kind, names in found.items() if names}


def listed(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def processes(mark: str) -> list[str]:
    """Processes with the mark, but this one and Python's helpers."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if f"{MARK}={mark}".encode() not in (path / "environ").read_bytes().split(b"\0"):
                continue
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            helper = int(parent) == os.getpid() and any(name in command for name in HELPERS)
            if state != "Z" and int(path.name) != os.getpid() and not helper:
                found.append(f"{path.name} {command[:100]}")
    return found


def others(name: str) -> bool:
    """Whether a name tells the number of another process, as those of PyTorch and joblib do; it may be of another suite."""
    numbers = re.findall(r"(?<![0-9a-z])[0-9]{2,7}(?![0-9a-z])", name)
    return bool(numbers) and str(os.getpid()) not in numbers


def in_use(path: Path) -> bool:
    """Whether a process has mapped a file: then it is somebody's, not left."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if str(path) in maps.read_text():
                return True
    return False
