"""The lock of a run directory: one at a time, and given back however a process ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from catgan.errors import UserError
from catgan.system.lock import RunLock

HOLD = """
import sys, time
from pathlib import Path
from catgan.system.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.take()
print("taken", flush=True)
time.sleep(600)
"""


def test_a_folder_in_use_is_refused_until_its_process_is_killed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        mine = RunLock(run)
        with pytest.raises(UserError, match=rf"run is in use by another run \(process {other.pid} on host .*--out"):
            mine.take()
        os.kill(other.pid, signal.SIGKILL)
    mine.take()
    mine.release()


def test_a_released_lock_can_be_taken_and_leaves_no_trace_of_its_holder(tmp_path: Path) -> None:
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.take()
    with pytest.raises(UserError, match=f"process {os.getpid()} "):
        second.take()
    first.release()
    assert not list(tmp_path.iterdir())
    second.take()
    second.release()


def test_a_folder_made_for_the_lock_goes_away_unless_something_was_put_into_it(tmp_path: Path) -> None:
    for name, left in (("empty", False), ("used", True)):
        lock = RunLock(tmp_path / name)
        lock.take()
        if left:
            (tmp_path / name / "file").touch()
        lock.release()
        assert (tmp_path / name).exists() == left


def test_what_an_older_holder_left_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(f"process {os.getpid()} on host here, since yesterday\n")
    lock = RunLock(tmp_path)
    lock.take()
    assert "yesterday" not in (tmp_path / ".lock").read_text()
    lock.release()


def test_a_file_deleted_between_opening_and_locking_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two could hold the folder: one by the old file, the other by the new."""
    first, second, third, real = RunLock(tmp_path), RunLock(tmp_path), RunLock(tmp_path), RunLock.lock
    first.take()

    def late(lock: RunLock, file: TextIO) -> None:
        first.release()
        real(lock, file)

    monkeypatch.setattr(RunLock, "lock", late)
    second.take()
    monkeypatch.setattr(RunLock, "lock", real)
    with pytest.raises(UserError, match="in use"):
        third.take()
    second.release()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*file.*choose another --out"):
        RunLock(tmp_path / "file").take()


MAKE = """
import sys, time
from pathlib import Path
from catgan.system.lock import exclusive
path = Path(sys.argv[1])
with exclusive(path, "waiting for another"):
    print("in", flush=True)
    sys.stdin.readline()
"""


def test_one_maker_waits_for_another_and_goes_on_when_that_is_killed(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-c", MAKE, str(tmp_path / "locks" / "a")], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    with start() as holding, start_after(holding, start) as waiting:
        assert waiting.stderr is not None
        assert waiting.stdout is not None
        assert waiting.stderr.readline() == "waiting for another\n"
        assert not select.select([waiting.stdout], [], [], 0.2)[0]
        os.kill(holding.pid, signal.SIGKILL)
        assert waiting.stdout.readline() == "in\n"
        waiting.communicate("\n")
        assert waiting.returncode == 0


def start_after(holding: subprocess.Popen[str], start: Callable[[], subprocess.Popen[str]]) -> subprocess.Popen[str]:
    assert holding.stdout is not None
    assert holding.stdout.readline() == "in\n"
    return start()
