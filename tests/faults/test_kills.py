"""Killed at any point, a run keeps a whole checkpoint, its directory is free at once, and its end is the same."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest
from trainers import assert_same, assert_same_state, dies_in_save, finish, start, steps, until

from catgan.checkpoint import reading as checkpoint

pytestmark = pytest.mark.slow
FLUSHES = 7  # of a save: four files, manifest, folder, and then the folder that it is in


def check_whole(run: Path) -> None:
    assert steps(run)
    for path in checkpoint.listed(run / "checkpoints"):
        checkpoint.verify(path)


def test_a_kill_in_a_save_leaves_the_checkpoints_before(tmp_path: Path, plain: Path) -> None:
    """In the first file of the third save, then its manifest, its folder, and after it got its name."""
    run, reached = tmp_path / "run", []
    for of_save in (1, 5, 6, 7):
        (trainer,) = start(
            run,
            *("--steps", "12"),
            *(["--resume"] if run.exists() else []),
            faults=[partial(dies_in_save, 2 * FLUSHES + of_save)],
        )
        assert trainer.end() == -signal.SIGKILL, trainer.said
        check_whole(run)
        reached.append(steps(run)[-1])
    assert reached == [2, 4, 6, 9], "two saves, then death in the third, which was complete the last time"
    finish(start(run, "--steps", "12", "--resume"))
    assert_same(run, plain)
    assert not list((run / "checkpoints").glob(".*")), "nothing half-written is left"


def test_a_kill_of_one_of_two_in_a_save(tmp_path: Path, plain_of_two: Path) -> None:
    run = tmp_path / "run"
    for faulty in (1, 0):
        both = start(
            run,
            *("--steps", "30", "--training.timeout", "8"),
            *(["--resume"] if run.exists() else []),
            world=2,
            faults=[partial(dies_in_save, 2 * FLUSHES)],
            faulty=faulty,
        )
        codes = {t.end() for t in both}
        assert codes == {1, -signal.SIGKILL}, both[1 - faulty].said
        assert f"rank {faulty} is gone" in both[1 - faulty].said
        check_whole(run)
    finish(start(run, "--steps", "30", "--resume", world=2))
    assert_same(run, plain_of_two)


def test_one_run_at_a_time_and_the_next_at_once_after_a_kill(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (first,) = start(run, "--steps", "1000000")
    until(lambda: bool(steps(run)), lambda: first.said)
    for world in (1, 2):
        others = start(run, "--steps", "1000000", "--resume", world=world)
        assert [t.end() for t in others] == [2] * world
        (line,) = "".join(t.said for t in others).splitlines()
        assert line.startswith(
            f"catgan train: error: {run} is in use by another run (process {first.process.pid} on host "
        )
    first.kill(signal.SIGKILL)
    assert first.end() == -signal.SIGKILL
    finish(start(run, "--steps", str(steps(run)[-1] + 1), "--resume"))


@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_three_processes_resume_to_the_same_bits(tmp_path: Path, how: str) -> None:
    """A sum of three depends on its order, and so on where DDP has packed a gradient: not otherwise after resuming."""
    options, straight, resumed = (
        ("--batch", "9", "--training.parallel", how),
        tmp_path / "straight",
        tmp_path / "resumed",
    )
    finish(start(straight, *options, "--steps", "6", world=3))
    finish(start(resumed, *options, "--steps", "3", world=3))
    finish(start(resumed, *options, "--steps", "6", "--resume", world=3))
    assert_same_state(resumed, straight)
