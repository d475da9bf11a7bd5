"""Where a process is gone or does not come, the others end: one line says which, and every log does."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from trainers import Trainer, signalled, stalls, start

pytestmark = pytest.mark.slow
GONE = "step 3: rank {} is gone (the connection to it broke); the others stop here"
AWAY = "step 3: rank {} did not come within 8 s; the others stop here"
KEEPER_GONE = "step 3: rank 0 is gone, or has given up to wait for this process"
LATE = "step 3: rank 1 kept the others waiting for over 8 s: raise training.timeout if that is no fault"
# The processes, the faulty one, what befalls it, and what the others say. A stopped process does not even say goodbye.
CASES = {
    "stopped": (3, 1, partial(signalled, 3, signal.SIGSTOP), AWAY.format(1)),
    "stopped-first": (2, 0, partial(signalled, 3, signal.SIGSTOP), KEEPER_GONE),
    "late": (2, 1, partial(stalls, 3, 12.0), LATE),
    "killed": (2, 1, partial(signalled, 3, signal.SIGKILL), GONE.format(1)),
    "killed-first": (2, 0, partial(signalled, 3, signal.SIGKILL), KEEPER_GONE),
}
Runs = dict[str, tuple[Path, list[Trainer]]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All cases at once: they mostly wait."""
    folder = tmp_path_factory.mktemp("stalls")
    found = {}
    for name, (world, faulty, fault, _) in CASES.items():
        options = ("--steps", "50", "--training.timeout", "8", "--batch", str(3 * world))
        found[name] = folder / name, start(folder / name, *options, world=world, faults=[fault], faulty=faulty)
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_others_end_and_say_who_is_missing(name: str, runs: Runs) -> None:
    (run, trainers), (_, faulty, _, expected) = runs[name], CASES[name]
    others = [rank for rank in range(len(trainers)) if rank != faulty]
    assert [trainers[rank].end(60) for rank in others] == [1] * len(others), [trainers[rank].said for rank in others]
    if name == "late":
        assert trainers[faulty].end() == 1
        assert trainers[faulty].said == "", "it is the first that says who was late"
    trainers[faulty].process.kill()
    who = "" if others[0] == 0 else f"rank {others[0]}: "
    # PyTorch tells of the end of rank 0, which keeps the store, by itself.
    errors = [line for rank in others for line in trainers[rank].said.splitlines() if line.startswith("catgan")]
    assert errors == [f"catgan train: error: {who}{expected}"]
    assert "Traceback" not in "".join(trainers[rank].said for rank in others)
    for rank in others:
        assert (run / "logs" / f"rank-{rank:05}.log").read_text().endswith(f"StalledError: {expected}\n")


def test_a_process_that_never_starts_is_told_in_one_line(tmp_path: Path) -> None:
    first, _ = start(
        tmp_path / "run", "--steps", "5", "--training.timeout", "3", world=2, faults=[partial(sys.exit, 0)], faulty=1
    )
    assert first.end(60) == 1
    (line,) = first.said.splitlines()
    assert line == "catgan train: error: start: another process is gone, or does not come"
    assert not (tmp_path / "run").exists()
