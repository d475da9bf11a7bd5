"""Random faults, one after another, until a run is at its end: that is the end of a run that nobody disturbed.

`pytest tests/faults/test_campaign.py --faults 200 --faults-seed 7` for a long campaign of another seed.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from trainers import Fault, assert_same, dies_in_save, finish, signalled, start, steps

from catgan.checkpoint import reading as checkpoint

pytestmark = pytest.mark.slow
TOTAL = 40
EVERY = ("--steps", str(TOTAL), "--checkpoint.every", "2", "--checkpoint.keep", "4", "--training.timeout", "8")


def damage(run: Path, chance: random.Random) -> str:
    """Spoil the newest checkpoint, if that leaves another."""
    there = checkpoint.listed(run / "checkpoints")
    if len(there) < 2:
        return "nothing to damage"
    victim = chance.choice(sorted(p for p in there[-1].iterdir()))
    content = bytearray(victim.read_bytes())
    how = chance.choice(("cut", "flipped", "missing"))
    if how == "cut":
        victim.write_bytes(content[: chance.randrange(len(content))])
    elif how == "flipped":
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        victim.write_bytes(content)
    else:
        victim.unlink()
    return f"{how} {there[-1].name}/{victim.name}"


def disturb(run: Path, world: int, chance: random.Random) -> str:
    """Start or go on with the run, and let one thing happen to it."""
    kind = chance.choice(("SIGTERM", "SIGKILL", "SIGKILL at a random time", "SIGKILL in a save"))
    faults: list[Fault] = []
    if kind == "SIGKILL in a save":
        faults = [partial(dies_in_save, chance.randint(1, 20))]
    elif kind != "SIGKILL at a random time":
        faults = [partial(signalled, chance.randint(0, 5), getattr(signal, kind))]
    faulty = chance.randrange(world)
    again = ("--resume",) if (run / "config.yaml").exists() else ()
    trainers = start(run, *EVERY, *again, world=world, faults=faults, faulty=faulty)
    if not faults:
        time.sleep(chance.uniform(0, 3))
        trainers[faulty].process.kill()
    codes = [t.end() for t in trainers]
    assert set(codes) <= {0, 1, 143, -signal.SIGKILL, -signal.SIGTERM}, [t.said for t in trainers]
    assert "Traceback" not in "".join(t.said for t in trainers), [t.said for t in trainers]
    told = f"{kind} of {faulty}: {codes} at {steps(run)[-1:]}"
    return told if chance.random() < 0.7 else f"{told}, {damage(run, chance)}"


@pytest.mark.parametrize("world", [1, 2])
def test_whatever_happens_the_end_is_the_same(world: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    count, seed = request.config.getoption("--faults"), request.config.getoption("--faults-seed")
    chance = random.Random(f"{seed} {world}")
    plain, done, ends = tmp_path / "plain", 0, 0
    finish(start(plain, *EVERY, world=world))
    while done < count:
        run = tmp_path / f"run-{ends}"
        while done < count and steps(run)[-1:] != [TOTAL]:
            done += 1
            print(f"{done}: {disturb(run, world, chance)}")
        finish(start(run, *EVERY, *(["--resume"] if (run / "config.yaml").exists() else []), world=world))
        assert_same(run, plain)
        shutil.rmtree(run)
        ends += 1
    print(f"seed {seed}, {world} processes: {done} faults, {ends} runs to their end, all bit-identical")
