"""Runs that are killed, stopped, starved of disk and damaged on their way: each must end as the undisturbed one."""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainers import (
    Fault,
    Trainer,
    assert_same,
    dies_in_resume,
    dies_in_save,
    fills_the_disk,
    finish,
    makes_read_only,
    short_of_disk,
    signalled,
    start,
    steps,
    until,
)

from campaigns.journal import Journal, Row
from catgan.checkpoint import reading as checkpoint

TOTAL = 60
TIMEOUT = 5  # seconds that one of two processes may keep the other waiting
EVERY = (
    *("--steps", str(TOTAL), "--checkpoint.every", "2", "--checkpoint.keep", "4"),
    *("--training.timeout", str(TIMEOUT)),
)
KINDS = {  # of runs: how many processes, and their options
    "one": (1, ()),
    "ddp": (2, ("--training.parallel", "ddp")),
    "fsdp2": (2, ("--training.parallel", "fsdp2")),
}
FAULTS = (
    "SIGTERM", "SIGKILL in a step", "SIGKILL at any time", "SIGKILL in a save", "SIGKILL in a resume",
    "SIGKILL twice in a row", "full disk", "limit of a file's size", "read-only directory", "SIGSTOP", "damaged checkpoint",
)  # fmt: skip
NEED_MOUNT = {"full disk", "read-only directory"}
STOPPED = (143, -signal.SIGTERM)
KILLED = (-signal.SIGKILL,)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int = 24) -> Iterator[bool]:
    """Mount a small disk at a folder; whether that can be had."""
    folder.mkdir(parents=True, exist_ok=True)
    release(folder)
    try:
        mount("-t", "tmpfs", "-o", f"size={megabytes}m", "none", folder)
    except (OSError, subprocess.CalledProcessError):
        yield False
        return
    try:
        yield True
    finally:
        release(folder)


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


def release(folder: Path) -> None:
    """Take away whatever is mounted on a folder or in it."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in reversed([p for p in mounts if Path(p) == folder or folder in Path(p).parents]):
        subprocess.run(["umount", "-l", place], check=True, capture_output=True)


class Kills:
    """A campaign in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.disk = folder, folder / "disk"
        self.said = folder / "said"
        self.plain: dict[str, Path] = {}
        shutil.rmtree(folder, ignore_errors=True)
        self.said.mkdir(parents=True)

    def perform(self, journal: Journal, names: Sequence[str]) -> list[Row]:
        with small_disk(self.disk) as mounts:
            faults = [f for f in FAULTS if mounts or f not in NEED_MOUNT]
            return journal.perform(names, partial(self.case, faults))

    def undisturbed(self, kind: str) -> Path:
        if kind not in self.plain:
            world, options = KINDS[kind]
            finish(start(self.folder / kind, *EVERY, *options, world=world, said=self.said))
            self.plain[kind] = self.folder / kind
        return self.plain[kind]

    def case(self, faults: Sequence[str], name: str, chance: random.Random) -> Row:
        """One run to its end, with one to five faults on its way."""
        kind = name.partition("-")[0]
        plain, run = self.undisturbed(kind), self.disk / "run"
        shutil.rmtree(run, ignore_errors=True)
        befell: list[str] = []
        try:
            one = OneRun(run, kind, self.said, self.disk / "filler", chance)
            for fault in chance.choices(faults, k=chance.randint(1, 5)):
                if steps(run)[-1:] == [TOTAL]:
                    break
                befell.append(f"{fault}: {one.suffer(fault)}")
            finish(one.start())
            assert_same(run, plain)
        except BaseException:
            if run.exists():
                shutil.copytree(run, self.folder / "failed" / name, dirs_exist_ok=True)
            print(f"{name}: {befell}", flush=True)
            raise
        finally:
            release(self.disk / "run")
            (self.disk / "filler").unlink(missing_ok=True)
        return {"faults": befell, "told": "; ".join(befell), "steps": TOTAL}


class OneRun:
    """A run and what befalls it."""

    def __init__(self, run: Path, kind: str, said: Path, filler: Path, chance: random.Random) -> None:
        self.run, self.said, self.filler, self.chance = run, said, filler, chance
        self.world, self.options = KINDS[kind]

    def start(self, faults: Sequence[Fault] = (), faulty: int = 0) -> list[Trainer]:
        again = ("--resume",) if (self.run / "config.yaml").exists() else ()
        options = (*EVERY, *self.options, *again)
        return start(self.run, *options, world=self.world, faults=faults, faulty=faulty, said=self.said)

    def suffer(self, fault: str) -> str:
        """Start or go on with the run, and let one thing happen to it; what came of it."""
        chance, faulty, step = self.chance, self.chance.randrange(self.world), self.chance.randint(0, 7)
        where = f"rank {faulty}" if self.world > 1 else "the process"
        match fault:
            case "SIGTERM" | "SIGKILL in a step":
                number = signal.SIGTERM if fault == "SIGTERM" else signal.SIGKILL
                codes = self.ended(self.start([partial(signalled, step, number)], faulty))
                return self.checked(codes, STOPPED if fault == "SIGTERM" else KILLED, faulty, f"{where} in step {step}")
            case "SIGKILL at any time":
                trainers, seconds = self.start(), chance.uniform(0, 3)
                time.sleep(seconds)
                trainers[faulty].process.kill()
                return self.checked(self.ended(trainers), (0, *KILLED), faulty, f"{where} after {seconds:.2f} s")
            case "SIGKILL in a save":
                flush = chance.randint(1, 21)
                codes = self.ended(self.start([partial(dies_in_save, flush)], faulty))
                return self.checked(codes, KILLED, faulty, f"{where} at flush {flush}")
            case "SIGKILL in a resume" | "SIGKILL twice in a row":
                said = ""
                if fault == "SIGKILL twice in a row" or not steps(self.run):
                    codes = self.ended(self.start([partial(signalled, 3, signal.SIGKILL)], faulty))
                    said = self.checked(codes, KILLED, faulty, f"{where} in step 3") + ", then "
                if not steps(self.run):
                    return f"{said}nothing to resume"
                network = chance.randint(1, 3)
                codes = self.ended(self.start([partial(dies_in_resume, network)], faulty))
                return said + self.checked(codes, KILLED, faulty, f"{where} reading network {network}")
            case "full disk":
                trainers = self.start([partial(fills_the_disk, step, self.filler)], faulty)
                codes = self.ended(trainers)
                self.filler.unlink(missing_ok=True)
                assert any("disk is full" in t.said for t in trainers), [t.said for t in trainers]
                return self.checked(codes, (1, 2), faulty, f"from step {step} on")
            case "limit of a file's size":
                size = chance.randint(3_000, 30_000)
                codes = self.ended(self.start([partial(short_of_disk, step, size)], faulty))
                return self.checked(codes, (0, 1, 2), faulty, f"{where}, {size} bytes from step {step} on")
            case "read-only directory":
                place = self.run / "checkpoints" if steps(self.run) and chance.random() < 0.5 else self.run
                trainers = self.start([partial(makes_read_only, step, place)], faulty)
                codes = self.ended(trainers)
                release(self.run)
                assert any("Read-only file system" in t.said for t in trainers), [t.said for t in trainers]
                return self.checked(codes, (1, 2), faulty, f"{place.name} from step {step} on")
            case "SIGSTOP":
                return self.halted(step, faulty, where)
            case _:
                return self.damaged()

    def halted(self, step: int, faulty: int, where: str) -> str:
        """A process that stands still: for a moment, or until the others have given up; then it is told to end, or killed."""
        trainers = self.start([partial(signalled, step, signal.SIGSTOP)], faulty)
        it = trainers[faulty]
        until(lambda: is_stopped(it.process.pid), lambda: it.said)
        for_good = self.chance.random() < 0.5
        if for_good:
            for other in trainers:
                if other is not it:
                    other.end(60)
            it.kill(self.chance.choice((signal.SIGKILL, signal.SIGCONT) if self.world > 1 else (signal.SIGKILL,)))
        else:
            time.sleep(0.3)
            it.kill(signal.SIGTERM)
            it.kill(signal.SIGCONT)
        codes = self.ended(trainers)
        how = "for good" if for_good else "for a moment, with SIGTERM"
        return self.checked(codes, (1, *KILLED) if for_good else STOPPED, faulty, f"{where} in step {step} {how}")

    def damaged(self) -> str:
        """Spoil the newest checkpoint, if that leaves another."""
        chance, there = self.chance, checkpoint.listed(self.run / "checkpoints")
        if len(there) < 2:
            return "there was none to spare"
        victim = chance.choice(sorted(there[-1].iterdir()))
        content = bytearray(victim.read_bytes())
        how = chance.choice(("cut", "flipped", "missing"))
        if how == "cut":
            victim.write_bytes(content[: chance.randrange(len(content))])
        elif how == "flipped":
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            victim.write_bytes(content)
        else:
            victim.unlink()
        return f"{victim.name} of {there[-1].name} {how}"

    def ended(self, trainers: Sequence[Trainer]) -> list[int]:
        """The exit codes, after checking what was said: no traceback, and of errors one line."""
        codes = [t.end() for t in trainers]
        said = "".join(t.said for t in trainers)
        assert "Traceback" not in said, said
        errors = [line for line in said.splitlines() if line.startswith("catgan")]
        assert all(len(line) <= 400 for line in errors), errors
        return codes

    def checked(self, codes: Sequence[int], expected: Sequence[int], faulty: int, told: str) -> str:
        """What happened, after checking that the faulty process ended as it must and no other by a signal."""
        assert codes[faulty] in expected, f"{told}: ended with {codes}"
        assert set(codes) <= {0, 1, 2, *STOPPED, *KILLED}, f"{told}: ended with {codes}"
        return f"{told}, at {steps(self.run)[-1] if steps(self.run) else 0}"


def is_stopped(pid: int) -> bool:
    """Whether a process stands still by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


# -- the campaign ------------------------------------------------------------------------------------------------------


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--one", type=int, default=100, help="runs of one process")
    parser.add_argument("--two", type=int, default=50, help="runs of two, DDP and FSDP2 in turn")


def campaign(o: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    """Do what is not done yet; how often each fault befell each kind of run."""
    names = [f"one-{i}" for i in range(o.one)] + [f"{('ddp', 'fsdp2')[i % 2]}-{i // 2}" for i in range(o.two)]
    rows = Kills(o.runs / "kills").perform(journal, names)
    columns = {kind: [row for row in rows if row["case"].startswith(f"{kind}-")] for kind in KINDS}
    counts = {
        kind: Counter(told.partition(":")[0] for row in mine for told in row.get("faults", ()))
        for kind, mine in columns.items()
    }
    ended = {kind: sum("failed" not in row for row in mine) for kind, mine in columns.items()}
    table = [["", "one process", "two, DDP", "two, FSDP2"]]
    table.append(["runs to their end, bit-identical", *(f"{ended[k]} of {len(columns[k])}" for k in KINDS)])
    table += [[fault, *(str(counts[kind][fault]) for kind in KINDS)] for fault in FAULTS]
    return {"table": table, "failed": len(rows) - sum(ended.values()), "cases": rows}
