"""Many runs of studies, some at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from catgan.errors import UserError
from catgan.studies.design import Run
from catgan.studies.records import path_of
from catgan.system.progress import Progress, clock

PATIENCE = 60.0  # seconds that stopped runs get to save what they have
POLL = 1.0  # seconds
TAIL = 65_536  # bytes of a file that hold its last line


class Queue:
    """Trains, measures and records runs, `jobs` at a time. A run that was interrupted goes on."""

    def __init__(self, todo: list[Run], runs: Path, records: Path, jobs: int, quiet: bool = False) -> None:
        """runs: where the run directories are, with what each process said in NAME.log beside them."""
        self.todo, self.runs, self.records, self.jobs, self.quiet = todo, runs, records, jobs, quiet
        self.live = sys.stderr.isatty() and not quiet
        self.active: dict[str, BaseProcess] = {}
        self.ended = 0
        self.shown = 0.0

    def work(self) -> list[str]:
        """Do all of it; the names of runs that failed.

        Raises KeyboardInterrupt or SystemExit after Ctrl-C, SIGTERM or SIGHUP, when the runs have saved what they have.
        """
        waiting, failed = list(self.todo), list[str]()
        self.began, self.before = time.monotonic(), self.finished()
        with threads_of_runs(), stopped_by_signals():
            try:
                while waiting or self.active:
                    while waiting and len(self.active) < self.jobs:
                        self.start(waiting.pop(0))
                    time.sleep(POLL)
                    failed += self.reap()
                    self.show()
            except BaseException:
                self.stop()
                raise
        return failed

    def start(self, run: Run) -> None:
        process = multiprocessing.get_context("spawn").Process(target=work, args=(run, self.runs, self.records))
        process.start()
        self.active[run.name] = process

    def reap(self) -> list[str]:
        """Take note of the runs that have ended; those that failed."""
        failed = []
        for name, process in list(self.active.items()):
            if process.is_alive():
                continue
            process.join()
            del self.active[name]
            self.ended += 1
            if process.exitcode:
                failed.append(name)
                log = self.runs / f"{name}.log"
                self.say(f"{name} failed: {last_line(log) or f'exit code {process.exitcode}'} (all of it: {log})")
            else:
                self.say(f"recorded {self.records / name}.json")
        return failed

    def stop(self) -> None:
        """Let the runs save what they have; end those that do not."""
        for process in self.active.values():
            process.terminate()
        until = time.monotonic() + PATIENCE
        for process in self.active.values():
            process.join(max(0.0, until - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self.say("stopped; the same command goes on")

    # -- what people see -------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        if not self.quiet:
            Progress.print(f"\r\033[K{text}" if self.live else text)

    def show(self) -> None:
        """One line, rewritten in place on a terminal, twice a minute elsewhere."""
        now = time.monotonic()
        if self.quiet or not self.active or now - self.shown < (0 if self.live else 30):
            return
        self.shown = now
        done, total = self.finished(), sum(run.testbed.minutes for run in self.todo)
        speed = (done - self.before) / (now - self.began)
        left = (total - done) / speed if speed else math.nan
        active = [run for run in self.todo if run.name in self.active]
        steps = "  ".join(f"{run.name} {step_of(self.runs / run.name)}/{run.config.training.steps}" for run in active)
        line = f"{self.ended}/{len(self.todo)} done  left {clock(left)}  {steps}"
        Progress.print(f"\r\033[K{line}" if self.live else line, end="" if self.live else "\n")

    def finished(self) -> float:
        """Minutes of a core that what is done takes, by the testbeds' own estimates."""
        done = 0.0
        for run in self.todo:
            recorded = path_of(self.records, run).exists()
            share = 1.0 if recorded else step_of(self.runs / run.name) / run.config.training.steps
            done += run.testbed.minutes * share
        return done


def work(run: Run, runs: Path, records: Path) -> None:
    """The process of one run. What it says goes to NAME.log."""
    from catgan.studies.perform import perform

    os.setsid()  # Ctrl-C is for the queue, which tells its runs to stop
    log = runs / f"{run.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            perform(run, runs, records)
        except UserError as error:
            print(error)
            raise SystemExit(2) from None
        except Exception:
            traceback.print_exc()
            raise SystemExit(1) from None


@contextlib.contextmanager
def threads_of_runs() -> Iterator[None]:
    """Processes that are started now compute on one thread each: libraries read this when they are loaded."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and the end of the terminal raise SystemExit here, as Ctrl-C raises KeyboardInterrupt."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]  # as by nohup
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def last_line(path: Path) -> str:
    """The last line of a file; empty if it is missing or has none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().decode("utf-8", "replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def step_of(folder: Path) -> int:
    """The last logged step of a run directory; 0 where there is none."""
    try:
        return int(json.loads(last_line(folder / "metrics.jsonl"))["step"])
    except (ValueError, KeyError, TypeError):
        return 0
