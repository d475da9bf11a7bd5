"""A run that is told to stop saves the step it is at, in all its processes, and goes on from there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from trainers import TINY, assert_same, finish, signalled, start, steps, until

pytestmark = pytest.mark.slow
SELDOM = ("--checkpoint.every", "1000")


def test_one_process_saves_its_step_and_goes_on(tmp_path: Path, plain: Path) -> None:
    run = tmp_path / "run"
    (trainer,) = start(run, "--steps", "12", *SELDOM, faults=[partial(signalled, 5, signal.SIGTERM)])
    assert trainer.end() == 143, trainer.said
    assert steps(run) == [6]
    assert f"stopped at step 6, saved {run}/checkpoints/step-00000006; go on with --resume" in trainer.said
    finish(start(run, "--steps", "12", "--resume"))
    assert_same(run, plain)


def test_a_signal_to_one_of_two_processes_stops_both(tmp_path: Path, plain_of_two: Path) -> None:
    run = tmp_path / "run"
    both = start(run, "--steps", "30", *SELDOM, world=2, faults=[partial(signalled, 5, signal.SIGTERM)], faulty=1)
    assert [t.end() for t in both] == [143, 143], both[0].said + both[1].said
    assert steps(run) == [6]
    assert "stopped at step 6" in both[0].said
    assert both[1].said == "", "the first process speaks for all"
    finish(start(run, "--steps", "30", "--resume", world=2))
    assert_same(run, plain_of_two)


def test_torchrun_restarts_a_run_one_of_whose_processes_was_killed_and_stops_all(tmp_path: Path) -> None:
    """A cluster that stops a job signals the processes and torchrun, which signals the processes once more."""
    run, heard = tmp_path / "run", tmp_path / "heard.txt"
    logs = [run / "logs" / f"rank-0000{rank}.log" for rank in range(2)]
    how = "--standalone --nproc-per-node 2 --max-restarts 1 --monitor-interval 0.1 -m catgan train digits".split()  # noqa: SIM905
    with heard.open("w") as file:
        torchrun = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *how, "--out", str(run), *TINY, "--steps", "1000000"],
            stdout=file,
            stderr=file,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def workers() -> list[int]:
        return [int(re.findall(r" process (\d+) on ", log.read_text())[-1]) for log in logs]

    def at(step: int) -> bool:
        assert torchrun.poll() is None, heard.read_text()
        return steps(run)[-1:] >= [step]

    try:
        until(lambda: at(2), heard.read_text)
        os.kill(workers()[1], signal.SIGKILL)
        until(lambda: heard.read_text().count("resuming from") == 1, heard.read_text)
        before = steps(run)[-1]
        until(lambda: at(before + 2), heard.read_text)
        for process in (*workers(), torchrun.pid):
            os.kill(process, signal.SIGTERM)
        torchrun.wait(60)
    finally:
        torchrun.kill()
    errors = re.findall(r"error: .*", heard.read_text())
    assert len(errors) == 1, errors
    assert re.fullmatch(
        r"error: step \d+: rank 1 is gone \(the connection to it broke\); the others stop here", errors[0]
    )
    for log in logs:
        found = re.findall(r"stopped by signal 15 at step (\d+)", log.read_text())
        assert found == [str(steps(run)[-1])], log.read_text()
