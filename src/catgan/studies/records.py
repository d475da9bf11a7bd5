"""What a finished run leaves: one JSON file with all that is needed to believe it, or to run it again.

RECORDS/STUDY/TESTBED/VARIANT-SEED.json    numbers, their course, and how they came about
RECORDS/STUDY/TESTBED/VARIANT-SEED.png     samples
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from catgan.config import Config
from catgan.config_io import differences, from_dict, to_dict
from catgan.errors import UserError
from catgan.studies.design import Run
from catgan.system.files import parsed_json, write_text

FORMAT = 1
LARGEST = 100_000  # bytes of a record
# Fields that leave the numbers of a run as they are: a record made with others still counts.
FREE = ("training.device", "training.timeout", "data.path", "data.workers", "log.wandb", "log.peak", "checkpoint")


@dataclass(frozen=True)
class RunRecord:
    """A run as recorded. Numbers by name: `frechet_distance` and other metrics, and MEASURE/K, MEASURE/first, MEASURE/last
    and MEASURE/mean of the alignment diagnostics; `A_without_last` too."""

    study: str
    testbed: str
    variant: str
    seed: int
    command: str
    commit: str
    changed: bool  # whether the checkout differed from the commit
    config: Config
    machine: dict[str, Any]
    versions: dict[str, str]
    began: str  # UTC
    cpu_seconds: float  # of training, without evaluations
    curves: dict[str, list[float]]  # by number; with `step` and `cpu_seconds`
    final: dict[str, float]  # numbers at the end
    truncated: dict[str, dict[str, float]]  # metrics at other psi, by psi
    protocol: dict[str, Any]  # of the evaluation at the end, with feature space and reference
    diverged: str = ""  # what was not finite, and when: then there are no numbers

    @property
    def name(self) -> str:
        return f"{self.study}/{self.testbed}/{self.variant}-{self.seed}"

    def number(self, name: str) -> float:
        """A number at the end."""
        if name not in self.final:
            raise UserError(f"the record {self.name} has no {name}: must be one of {', '.join(self.final)}")
        return self.final[name]

    def course(self, name: str, over: str, at: float) -> float:
        """A number at a step, or after some CPU seconds of training: between the points of its course, linearly."""
        xs, ys = self.curves[over], self.curves[name]
        if at <= xs[0] or len(xs) == 1:
            return ys[0]
        for (x0, x1), (y0, y1) in zip(pairwise(xs), pairwise(ys), strict=True):
            if at <= x1:
                return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
        return ys[-1]


def path_of(folder: Path, run: Run) -> Path:
    return folder / f"{run.name}.json"


def write_record(folder: Path, record: RunRecord) -> Path:
    """Write a new record as a whole or not at all. Raises UserError if there is one already."""
    content = {"format": FORMAT, **asdict(record), "config": to_dict(record.config)}
    text = one_line_lists(json.dumps(rounded(content), indent=1)) + "\n"
    assert len(text) < LARGEST, f"{record.name}: a record of {len(text)} bytes"
    path = folder / f"{record.name}.json"
    if path.exists():
        raise UserError(f"{path} is there already: records are not overwritten; move it away")
    write_text(path, text)
    return path


def read_record(path: Path) -> RunRecord:
    """Raises UserError for a file that is no record of this format."""
    try:
        content = parsed_json(path.read_text("utf-8"))
        if content.pop("format", None) != FORMAT:
            raise UserError(f"{path} is no record of format {FORMAT}: read it with the catgan that wrote it")
        content["config"] = from_dict(content["config"], where=str(path))
        return RunRecord(**content)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(
            f"{path} is damaged: it is no record of a run; restore it, or delete it to run it again"
        ) from None


def recorded(folder: Path, run: Run) -> RunRecord | None:
    """The record of a run, if it is there. Raises UserError for one of another configuration."""
    path = path_of(folder, run)
    if not path.exists():
        return None
    record = read_record(path)
    found = other_fields(record.config, run.config)
    if not record.diverged:
        found += ["how many samples were measured"] if record.protocol["samples"] != run.testbed.samples else []
        found += [f"no {metric}" for metric in run.testbed.metrics if metric not in record.final]
    if found:
        raise UserError(
            f"{path} is of another configuration ({', '.join(found)}): move it away to run this one, or use another --records"
        )
    return record


def other_fields(stored: Config, wanted: Config) -> list[str]:
    """Dotted names of the fields in which runs differ, as far as these could change their numbers."""
    return [n for n in differences(stored, wanted) if not any(f"{n}.".startswith(f"{free}.") for free in FREE)]


def summary(stages: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Alignment per stage, by measure, as numbers by name; A also without the last stage, which is 1 by definition."""
    found: dict[str, float] = {}
    for measure, values in stages.items():
        if values:
            found |= {f"{measure}/{k}": v for k, v in enumerate(values)}
            found |= {f"{measure}/first": values[0], f"{measure}/last": values[-1], f"{measure}/mean": fmean(values)}
    if len(stages.get("A", ())) > 1:
        found["A_without_last"] = fmean(stages["A"][:-1])
    return found


def rounded(value: Any) -> Any:
    """Numbers to six digits, in all that JSON can hold."""
    match value:
        case float():
            return float(f"{value:.6g}")
        case dict():
            return {k: rounded(v) for k, v in value.items()}
        case list() | tuple():
            return [rounded(v) for v in value]
    return value


def one_line_lists(text: str) -> str:
    """Indented JSON with every list of numbers on one line."""
    return re.sub(r"\[[^\[\]{}\"]*\]", lambda m: " ".join(m[0].split()), text)
