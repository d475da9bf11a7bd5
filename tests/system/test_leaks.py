"""What the suite's own watch over leaks sees."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import leaks
import pytest


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Does something under the watch, which is impatient."""
    monkeypatch.setattr(leaks, "PATIENCE", 0.1)
    for name in (leaks.MARK, "TMPDIR"):
        monkeypatch.setenv(name, os.environ[name])
    folder = tmp_path / "temporary"
    folder.mkdir()

    def watch(work: Callable[[], object]) -> None:
        with leaks.nothing_left(folder):
            work()

    return watch


def test_what_tidies_up_is_not_seen(watched: Callable[[Callable[[], object]], None]) -> None:
    def tidy() -> None:
        with tempfile.NamedTemporaryFile():
            subprocess.run([sys.executable, "-S", "-c", "pass"], check=True)

    watched(tidy)


def test_a_temporary_file_is_seen(watched: Callable[[Callable[[], object]], None]) -> None:
    with pytest.raises(AssertionError, match=r"the tests left \{'temporary files': \['left"):
        watched(lambda: tempfile.mkdtemp(prefix="left"))


def test_a_thread_that_holds_the_program_up_is_seen(watched: Callable[[Callable[[], object]], None]) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="endless")
    with pytest.raises(AssertionError, match=r"'threads': \['endless"):
        watched(thread.start)
    end.set()
    thread.join()


def test_a_process_is_seen_whose_parent_has_ended(
    watched: Callable[[Callable[[], object]], None], tmp_path: Path
) -> None:
    pid = tmp_path / "pid"

    def leave() -> None:
        subprocess.run(["sh", "-c", f"sleep 60 > /dev/null 2>&1 & echo $! > {pid}"], check=True)

    try:
        with pytest.raises(AssertionError, match=r"'processes': \['[0-9]+ sleep 60"):
            watched(leave)
    finally:
        os.kill(int(pid.read_text()), 9)


def test_shared_memory_is_seen_that_nobody_uses(watched: Callable[[Callable[[], object]], None]) -> None:
    path = leaks.SHARED / f"catgan-{os.getpid()}-{time.monotonic_ns()}"
    try:
        with pytest.raises(AssertionError, match=f"'shared memory': ..{path.name}"):
            watched(lambda: path.write_bytes(b"x"))
    finally:
        path.unlink(missing_ok=True)
