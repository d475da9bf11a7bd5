"""What a run directory says of its run: configuration, metrics, evaluations. No weights are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from catgan.checkpoint.reading import listed
from catgan.config import Config
from catgan.config_io import load_yaml
from catgan.errors import UserError, brief
from catgan.metrics import numbers, titles
from catgan.objective.identity import Recorded
from catgan.system.files import parsed_json
from catgan.training.logs import read_metrics

# What evaluations measure, in the order in which it is shown: titles, where an evaluation gives none, and which way is
# better.
TITLES = {name: title for name, title in titles().items() if numbers()[name].better}
BETTER = {name: number.better for name, number in numbers().items() if number.better}
DURING_TRAINING = re.compile(r"training-(\d+)")
# What a protocol may say of the one evaluation rather than of how it was done.
PER_EVALUATION = ("measured",)
# Of what kind the values are that are looked into, in whichever file.
KINDS = {
    "step": int, "metrics": dict, "names": dict, "protocol": dict, "failures": list, "warnings": list, "objective": list,
}  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one step, what they are called, and how they were measured."""

    name: str  # "training", or the name of the file
    step: int
    metrics: dict[str, float]
    names: dict[str, str]
    protocol: dict[str, Any]
    failures: list[str]  # of the generator, as `evaluation.failures` sees them
    warnings: list[str]  # about the numbers

    @property
    def features(self) -> str:
        """The feature space of the distances."""
        return str(self.protocol.get("features", "feature space not recorded"))

    def key(self) -> str:
        """Equal for evaluations whose numbers may be compared."""
        return json.dumps({k: v for k, v in self.protocol.items() if k not in PER_EVALUATION}, sort_keys=True)

    def title(self, metric: str) -> str:
        return self.names.get(metric) or TITLES.get(metric, metric)


@dataclass(frozen=True)
class Record:
    """One run, as its directory tells it."""

    folder: Path
    config: Config
    about: dict[str, Any]  # run.json; empty if it is missing
    rows: list[dict[str, float]]  # metrics.jsonl
    evaluations: list[Evaluation]  # by step
    best: dict[str, Any] | None  # checkpoints/best.json

    @cached_property
    def terms(self) -> dict[str, Recorded]:
        """What the run minimises, by network and name, and its encoder, if it has one."""
        found = map(Recorded.read, map(str, self.about.get("objective", ())))
        return {f"{t.network} {t.name}".strip(): t for t in found}

    @property
    def step(self) -> int:
        """The last step that left a trace."""
        saved = [int(m[1]) for p in listed(self.folder / "checkpoints") if (m := re.fullmatch(r"step-(\d+)", p.name))]
        return int(max([0, *saved, *(r["step"] for r in self.rows)]))

    @property
    def epochs_per_step(self) -> float | None:
        """Epochs of one step, if the number of samples is known."""
        known = [r["epoch"] / r["step"] for r in self.rows if r.get("epoch")]
        return known[-1] if known else None

    def latest(self, prefix: str) -> dict[str, float]:
        """The newest entry with metrics of this prefix, such as `diagnose/`, which is cut off; else empty."""
        for row in reversed(self.rows):
            found = {name.removeprefix(prefix): v for name, v in row.items() if name.startswith(prefix)}
            if found:
                return {"step": row["step"], **found}
        return {}

    def previews(self, kind: str) -> dict[int, Path]:
        """Preview pictures by step. kind: samples or stages."""
        found = sorted((self.folder / "previews").glob(f"{kind}-*.png"))
        return {int(m[1]): p for p in found if (m := re.fullmatch(rf"{kind}-(\d+)", p.stem))}

    def points(self, metric: str) -> tuple[list[float], list[float]]:
        """Steps and values of a metric."""
        pairs = [(r["step"], r[metric]) for r in self.rows if metric in r]
        return [s for s, _ in pairs], [v for _, v in pairs]


def read_run(folder: Path) -> Record:
    """Read a run directory. Raises UserError for anything missing or damaged that a run cannot be told without."""
    if not folder.exists():
        raise UserError(f"{folder} does not exist: must be a run directory")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: must be a run directory")
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is no run of catgan: it has no config.yaml")
    config = load_yaml(folder / "config.yaml").validate()
    rows = read_metrics(folder)
    about, best = folder / "run.json", folder / "checkpoints" / "best.json"
    return Record(
        folder=folder,
        config=config,
        about=read_object(about, ()) if about.exists() else {},
        rows=rows,
        evaluations=read_evaluations(folder / "evaluations", rows),
        best=read_object(best, ("step", "metric", "value")) if best.exists() else None,
    )


def read_evaluations(folder: Path, rows: Sequence[Mapping[str, float]]) -> list[Evaluation]:
    """Those of training by the rows of metrics.jsonl, which a resumed run keeps true, and the files of all others."""
    files = {p.stem: read_evaluation(p) for p in sorted(folder.glob("*.json"))}
    trained = {int(m[1]): f for name, f in files.items() if (m := DURING_TRAINING.fullmatch(name))}
    usual = trained[max(trained)] | {"failures": []} if trained else {}
    found = []
    for row in rows:
        metrics = {name.removeprefix("eval/"): v for name, v in row.items() if name.startswith("eval/")}
        if metrics:
            step = int(row["step"])
            found.append(evaluation("training", trained.get(step, usual) | {"step": step, "metrics": metrics}))
    found += [evaluation(name, f) for name, f in files.items() if not DURING_TRAINING.fullmatch(name)]
    return sorted(found, key=lambda e: e.step)


def read_evaluation(path: Path) -> dict[str, Any]:
    return read_object(path, ("step", "metrics"))


def evaluation(name: str, content: Mapping[str, Any]) -> Evaluation:
    metrics = {m: float(v) for m, v in content["metrics"].items() if isinstance(v, (int, float))}
    return Evaluation(
        name,
        content["step"],
        metrics,
        content.get("names", {}),
        content.get("protocol", {}),
        content.get("failures", []),
        content.get("warnings", []),
    )


def read_object(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """A JSON file with an object that has these keys. Raises UserError if it is not that."""
    try:
        content = parsed_json(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{path} is damaged: it is no JSON; delete it or restore it") from None
    if not isinstance(content, dict) or not all(k in content for k in keys):
        raise UserError(f"{path} is damaged: must be a JSON object with {', '.join(keys) or 'fields'}")
    for name, kind in KINDS.items():
        if name in content and not isinstance(content[name], kind):
            raise UserError(f"{path} is damaged: {name} is {brief(content[name])}; delete it or restore it")
    return content


def shown_metrics(measured: Sequence[Mapping[str, float]]) -> list[str]:
    """The metrics measured, known ones first; a deviation (NAME_std) belongs to its metric."""
    names = dict.fromkeys(m for metrics in measured for m in metrics)
    order = [m for m in TITLES if m in names] + [m for m in names if m not in TITLES]
    return [m for m in order if not (m.endswith("_std") and m.removesuffix("_std") in names)]


def arrow(metric: str) -> str:
    """Which way is better, for a heading."""
    return {"lower": " ↓", "higher": " ↑"}.get(BETTER.get(metric, ""), "")


def value(setting: object) -> str:
    """A setting as people write it: 0.1, 4 8 16, none."""
    if setting is None:
        return "none"
    if isinstance(setting, (tuple, list)):
        return " ".join(value(v) for v in setting) or "none"
    return f"{setting:g}" if isinstance(setting, float) else str(setting)
