"""The best checkpoint of a run so far, by one number of its evaluations (`eval.best`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from catgan.checkpoint.manifest import MANIFEST
from catgan.evaluation.protocol import Result
from catgan.metrics import numbers
from catgan.system.files import delete_folder, read_if_there, write_text
from catgan.system.processes import Processes
from catgan.system.progress import Progress

Save = Callable[[Path, Callable[[], None]], None]


def keep_best(folder: Path, metric: str, result: Result, save: Save, processes: Processes, quiet: bool = False) -> bool:
    """Save a checkpoint in `folder` as the best one if `metric` is better than ever before and nothing has failed; whether it was.

    save: writes a checkpoint, and calls what it is given when that is complete.
    """
    if processes.first:
        for failure in result.failures:
            Progress.print(f"warning: step {result.step}: {failure}")
        if metric not in result.metrics:
            Progress.print(f"warning: no {metric} at step {result.step}: {'; '.join(result.warnings)}")
    if result.failures or metric not in result.metrics:
        return False
    value, measured_by = result.metrics[metric], result.measured_by
    known = processes.from_first(lambda: best_so_far(folder))
    sign = -1 if numbers()[metric].better == "higher" else 1
    if (
        known is not None
        and (known["metric"], known["measured_by"]) == (metric, measured_by)
        and sign * known["value"] <= sign * value
    ):
        return False
    path = folder / best_name(result.step)
    note = {"step": result.step, "metric": metric, "value": value, "name": result.names[metric]}

    def done() -> None:
        if not processes.first:
            return
        write_text(folder / "best.json", json.dumps(note | {"measured_by": measured_by}) + "\n")
        for other in folder.glob("best-*"):
            if other != path:
                delete_folder(other)
        if not quiet:
            Progress.print(f"best so far: {note['name']} {value:.5g} at step {result.step}, kept as {path}")

    save(path, done)
    return True


def best_name(step: int) -> str:
    return f"best-{step:08d}"


def best_so_far(folder: Path) -> dict[str, Any] | None:
    """What is written beside the best checkpoint, if there is one."""
    note = read_if_there(folder / "best.json")
    complete = {"step", "metric", "value", "measured_by"} <= note.keys()
    return note if complete and (folder / best_name(note["step"]) / MANIFEST).is_file() else None
