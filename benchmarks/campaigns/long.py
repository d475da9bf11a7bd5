"""One long run with everything on: does its memory grow, do its files, and can they be read at the end?"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from trainers import TINY, steps

from campaigns.journal import Journal, Row
from campaigns.watching import held, look, of_longest
from catgan.studies.queue import step_of

EVERY = 5.0  # seconds between two looks
WARM = 5000  # steps after which memory counts
# Over those of TINY, which come first.
OPTIONS = (
    *"--log.every 100 --log.preview-every 10000 --log.diagnose-every 5000 --checkpoint.every 1000 --checkpoint.keep 3".split(),  # noqa: SIM905
    *"--eval.every 10000 --eval.features classifier --eval.samples 500 --eval.metrics distance kid".split(),  # noqa: SIM905
)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=200_000, help="steps of the run")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop then at the latest; the same command goes on")


def campaign(o: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    """Train, or go on, and look at the process meanwhile."""
    run, end = o.runs / "long", time.monotonic() + 60 * o.minutes
    again = ("--resume",) if (run / "config.yaml").exists() else ()
    argv = ["train", "digits", "--out", str(run), *TINY, *OPTIONS, "--steps", str(o.steps), *again]
    with (o.runs / "long.txt").open("a") as said:
        process = subprocess.Popen([sys.executable, "-m", "catgan", *argv], stdout=said, stderr=said)
        try:
            while process.poll() is None and time.monotonic() < end:
                began = time.monotonic()
                time.sleep(EVERY)
                if process.poll() is None:
                    journal.note(
                        f"{process.pid}-{len(journal.rows)}",
                        step=step_of(run),
                        **look(process.pid),
                        seconds=round(time.monotonic() - began, 2),
                    )
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            code = process.wait(120)
    return found(run, list(journal.rows.values()), code)


def found(run: Path, rows: list[Row], code: int) -> dict[str, Any]:
    """The slope of memory in the process that was looked at longest, and what lies in the run's directory."""
    longest = of_longest(rows)
    warm = [row for row in longest if row["step"] >= longest[0]["step"] + WARM] or longest
    at = np.array([row["step"] for row in warm]) / 1000
    slope, memory = held(warm, at, f"{at[-1] - at[0]:.0f},000 steps", "per 1,000 steps", 4)
    faults = [] if code in (0, 143) else [f"ended with {code}"]
    faults += unreadable(run)
    kinds = {name: files(run / name) for name in ("checkpoints", "previews", "evaluations", "tensorboard", "logs")}
    table = [
        ["", ""],
        ["steps", f"{step_of(run):,}"],
        ["hours", f"{sum(row['seconds'] for row in rows) / 3600:.2f}"],
        *memory,
        ["checkpoints", f"{len(steps(run))} of the last steps, {kinds['checkpoints'][1]:.1f} MB with the best"],
        *([name, f"{count} files, {size:.2f} MB"] for name, (count, size) in kinds.items() if name != "checkpoints"),
        ["metrics.jsonl", f"{(run / 'metrics.jsonl').stat().st_size / 1e6:.2f} MB"],
        ["what cannot be read", "; ".join(faults) or "nothing"],
    ]
    return {"table": table, "failed": len(faults), "slope": slope, "looks": len(rows)}


def files(folder: Path) -> tuple[int, float]:
    """How many files there are in a folder, and their megabytes."""
    sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    return len(sizes), sum(sizes) / 1e6


def unreadable(run: Path) -> list[str]:
    """What is wrong with a run's logs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    faults = []
    entries = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    if entries != sorted(entries):
        faults.append("metrics.jsonl is out of order")
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    there = {event.step for event in events.Scalars("generator/loss")} if events.Tags()["scalars"] else set()
    if missing := {s for s in entries if s % 100 == 0} - there:
        faults.append(f"TensorBoard lacks {len(missing)} steps")
    if not (run / "logs" / "rank-00000.log").read_text("utf-8"):
        faults.append("the log is empty")
    return faults
