"""Several runs beside each other: groups that differ by their seed only, and the figures of each at one step."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from catgan.config_io import attribute, differences
from catgan.errors import UserError
from catgan.report.records import Evaluation, Record, read_run, shown_metrics, value
from catgan.system.tables import aligned

# Fields that leave what a run computes as it is, up to rounding.
SAME_NUMBERS = (
    *("training.seed", "training.device", "training.threads", "data.workers", "checkpoint", "log"),
    *("training.micro_batch", "training.parallel", "training.recompute", "training.compile", "training.timeout"),
    *("training.reuse_fakes", "training.cuda_graph"),
)
BUT = ("log.diagnose_samples",)
ALIGNMENT = ("delta", "excess", "R", "A", "A_without_last")
At = Literal["common", "last"]
LEFT_OUT = "left out"
LONGEST_LABEL = 3  # fields


@dataclass(frozen=True)
class Table:
    """Figures of one kind, one set per run."""

    title: str
    columns: dict[str, str]  # metric to its heading
    at: str  # which step the figures are of
    steps: list[int | None]  # per run; None: it has none
    values: list[dict[str, float]]  # per run
    protocol: dict[str, Any]
    key: str  # of the protocol; empty for alignment

    def of(self, runs: Sequence[int], metric: str) -> list[float]:
        """The values of some of the runs, as far as there are any."""
        return [self.values[i][metric] for i in runs if metric in self.values[i]]


@dataclass(frozen=True)
class Group:
    """Runs whose configurations differ by nothing but their seed."""

    label: str
    settings: dict[str, Any]  # where it differs from other groups
    runs: list[int]


@dataclass(frozen=True)
class Comparison:
    records: list[Record]
    names: list[str]
    groups: list[Group]
    tables: list[Table]  # alignment first, if any run has it, then an evaluation per protocol
    notes: list[str]  # what makes figures hard to compare

    def group_of(self, run: int) -> int:
        return next(i for i, g in enumerate(self.groups) if run in g.runs)


def compare(folders: Sequence[Path], at: At = "common") -> Comparison:
    """Read and compare run directories.

    at: "common" takes figures at the last step that all runs with such figures have, or, if there is none, as "last"
    does: at the last step of each run. Raises UserError for missing, damaged or repeated runs.
    """
    if not folders:
        raise UserError("no run to compare: name at least one run directory")
    resolved = [f.resolve() for f in folders]
    for i, folder in enumerate(resolved):
        if folder in resolved[:i]:
            raise UserError(f"{folders[i]} is named twice: name each run once")
    records = [read_run(f) for f in folders]
    short = [folder.name for folder in resolved]
    names = short if len(set(short)) == len(short) else list(map(str, folders))
    groups = grouped(records, names)
    evaluations = [evaluation_table(records, key, at) for key in protocols(records)]
    tables = [table for table in (alignment_table(records, at), *evaluations) if any(table.values)]
    return Comparison(records, names, groups, tables, notes(records, groups, tables))


# -- groups ----------------------------------------------------------------------------------------------------------


def grouped(records: Sequence[Record], names: Sequence[str]) -> list[Group]:
    """Runs of equal configuration (see `SAME_NUMBERS`) and losses, in the order in which they were named."""
    members: list[list[int]] = []
    for i, record in enumerate(records):
        home = next((m for m in members if not differing(records[m[0]], record)), None)
        if home is None:
            members.append(home := [])
        home.append(i)
    firsts = [records[m[0]] for m in members]
    settings = [group_settings(r, firsts) for r in firsts]
    labels = [label(found, firsts) for found in settings]
    if len(set(labels)) < len(labels) or any(len(s) > LONGEST_LABEL for s in settings) or not all(labels):
        labels = [names[m[0]] + (f" and {len(m) - 1} more" if len(m) > 1 else "") for m in members]
    return [Group(*group) for group in zip(labels, settings, members, strict=True)]


def differing(a: Record, b: Record) -> list[str]:
    """What sets two runs apart: dotted names of fields, and names of terms that the fields do not account for."""
    found = differences(a.config, b.config)
    fields = [n for n in found if n in BUT or not any(f"{n}.".startswith(f"{f}.") for f in SAME_NUMBERS)]
    terms = []
    for name in dict.fromkeys((*a.terms, *b.terms)):
        here, there = a.terms.get(name), b.terms.get(name)
        alike = here and there and (here.weights, here.digest) == (there.weights, there.digest)
        if not alike and (not fields or not all(t is None or t.builtin for t in (here, there))):
            terms.append(name)
    return fields + terms


def group_settings(record: Record, others: Sequence[Record]) -> dict[str, str]:
    """What sets a group apart: its recipe if there are several, and what differs among groups of its recipe."""
    kin = [r for r in others if r.config.recipe == record.config.recipe]
    names = ["recipe"] if len(kin) < len(others) else []
    names += sorted(dict.fromkeys(n for r in kin for n in differing(kin[0], r)), key=lambda n: " " in n)  # fields first
    return {n: setting(record, n, kin) for n in names}


def label(settings: Mapping[str, str], others: Sequence[Record]) -> str:
    """Settings as one line; a term of somebody's own that a run lacks is named only if there is nothing else to name."""
    own = {n for r in others for n, t in r.terms.items() if not t.builtin}
    missing = [n for n, s in settings.items() if s == LEFT_OUT]
    named = [s if n == "recipe" else f"{n} {s}" for n, s in settings.items() if n not in missing]
    return ", ".join(named + [f"without {n}" for n in missing if n not in own or not named])


def setting(record: Record, name: str, others: Sequence[Record]) -> str:
    """The value of a field; or weight and function of a term, as far as these differ among the runs."""
    terms = [r.terms.get(name) for r in others]
    if not any(terms):
        return value(attribute(record.config, name))
    there, own = [t for t in terms if t], record.terms.get(name)
    if own is None:
        return LEFT_OUT
    digests, titles = {t.digest for t in there}, {t.digest: t.short for t in there}
    parts = [own.weight] if own.weight and (len({t.weights for t in there}) > 1 or len(digests) == 1) else []
    if len(digests) > 1 or not parts:
        parts.append(f"= {own.short}" if len(set(titles.values())) == len(digests) else f"= {own.short} {own.digest}")
    return " ".join(parts)


# -- figures ---------------------------------------------------------------------------------------------------------


def alignment_table(records: Sequence[Record], at: At) -> Table:
    """Means over stages of the diagnoses."""
    prefix, found = "diagnose/", []
    for record in records:
        rows = [r for r in record.rows if "diagnose/delta/mean" in r]
        found.append({int(r["step"]): {n.removeprefix(prefix): v for n, v in r.items() if n != "step"} for r in rows})
    where, steps = chosen_steps(found, at)
    picked = [{} if step is None else entries[step] for entries, step in zip(found, steps, strict=True)]
    values = [{m: p[f"{m}/mean"] for m in ALIGNMENT if f"{m}/mean" in p} for p in picked]
    columns = {m: m for m in ALIGNMENT} | {"A_without_last": "A without the last stage"}
    columns = {m: title for m, title in columns.items() if any(m in v for v in values)}
    return Table("Alignment, means over stages", columns, where, steps, values, {}, "")


def protocols(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(e.key() for r in records for e in r.evaluations))


def series(record: Record, key: str) -> dict[int, Evaluation]:
    """A run's evaluations under one protocol, by step."""
    return {e.step: e for e in record.evaluations if e.key() == key}


def evaluation_table(records: Sequence[Record], key: str, at: At) -> Table:
    """The metrics of all runs under one protocol."""
    found = [series(r, key) for r in records]
    where, steps = chosen_steps(found, at)
    values = [{} if s is None else entries[s].metrics for entries, s in zip(found, steps, strict=True)]
    one = next(e for entries in found for e in entries.values())
    columns = {m: one.title(m) for m in shown_metrics(values)}
    special = {n: v for n, v in flat(one.protocol).items() if n in varying(records) and n != "features"}
    title = ", ".join([f"Evaluation: {one.features}", *(f"{n} {value(v)}" for n, v in special.items())])
    return Table(title, columns, where, steps, values, one.protocol, key)


def varying(records: Sequence[Record]) -> set[str]:
    """Dotted names of what differs between the protocols of the evaluations."""
    found = [flat(json.loads(key)) for key in protocols(records)]
    names = {n for f in found for n in f}
    return {n for n in names if any(f.get(n) != found[0].get(n) for f in found)}


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names."""
    found: dict[str, Any] = {}
    for name, v in content.items():
        found |= flat(v, f"{prefix}{name}.") if isinstance(v, dict) else {f"{prefix}{name}": v}
    return found


def chosen_steps(found: Sequence[Mapping[int, object]], at: At) -> tuple[str, list[int | None]]:
    """Which step to look at, in words, and that step of each run; None where it has nothing."""
    present = [set(entries) for entries in found if entries]
    shared = set.intersection(*present) if present else set()
    if len(present) > 1 and at == "common" and shared:
        last = max(shared)
        return f"step {last:,}, the last that the runs have in common", [last if f else None for f in found]
    why = ", since there is no common one" if len(present) > 1 and at == "common" else ""
    return f"the last step of each run{why}", [max(f) if f else None for f in found]


def mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of the sample (n - 1); None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def notes(records: Sequence[Record], groups: Sequence[Group], tables: Sequence[Table]) -> list[str]:
    """What stands in the way of comparing the figures."""
    found = []
    fields = ("sample.scales", "sample.size", "sample.down", "sample.up", "log.diagnose_samples")
    several = {f: dict.fromkeys(value(attribute(r.config, f)) for r in records) for f in fields}
    differ = [f"{f} ({' / '.join(values)})" for f, values in several.items() if len(values) > 1]
    if differ:
        found.append(f"Alignment is not measured alike in all runs: they differ in {', '.join(differ)}.")
    if sum(1 for t in tables if t.key) > 1:
        found.append("Evaluations by different protocols have tables of their own: their figures do not compare.")
    for table in tables:
        apart = [g.label for g in groups if len({table.steps[i] for i in g.runs} - {None}) > 1]
        if apart:
            found.append(
                f"{table.title}: runs of {' and of '.join(apart)} are at different steps, so their mean says little."
            )
    return found


# -- as text and JSON ------------------------------------------------------------------------------------------------


def figure_text(values: Sequence[float], alone: Callable[[float], str] = "{:.4g}".format) -> str:
    """The mean and, of several values, the standard deviation, to two digits of it; `alone` writes a mean without one."""
    if not values:
        return "-"
    std = deviation(values)
    if not std or not math.isfinite(std):
        return alone(mean(values)) + ("" if std is None else f" ± {std:g}")
    digits = max(0, 1 - math.floor(math.log10(std)))
    return f"{mean(values):.{digits}f} ± {std:.{digits}f}"


def table_rows(c: Comparison, table: Table, single: bool = True) -> list[list[str]]:
    """A row per group and, where it has several runs and `single`, per run: name, runs, steps, figures."""
    rows = []
    for group in c.groups:
        steps = sorted({s for i in group.runs if (s := table.steps[i]) is not None})
        shown = f"{steps[0]}" + (f"-{steps[-1]}" if len(steps) > 1 else "") if steps else "-"
        count, have = len(group.runs), sum(bool(table.values[i]) for i in group.runs)
        runs = f"{have} of {count}" if 0 < have < count else f"{count}"
        rows.append([group.label, runs, shown, *(figure_text(table.of(group.runs, m)) for m in table.columns)])
        if single and len(group.runs) > 1:
            for i in group.runs:
                seed = c.records[i].config.training.seed
                figures = [figure_text(table.of([i], m)) for m in table.columns]
                step = table.steps[i]
                rows.append([f"  {c.names[i]}, seed {seed}", "", "-" if step is None else str(step), *figures])
    return rows


def text(c: Comparison) -> str:
    """Tables for a terminal, groups as rows."""
    parts = []
    for table in c.tables:
        rows = [["", "runs", "step", *table.columns], *table_rows(c, table)]
        parts.append(f"{table.title} ({table.at})\n{aligned(rows)}")
    if not parts:
        parts.append("no diagnosis and no evaluation is logged yet")
    if any(len(g.runs) > 1 for g in c.groups):
        parts.append("mean ± standard deviation (n - 1) over runs that differ by their seed only")
    return "\n\n".join([*parts, *c.notes])


def to_dict(c: Comparison) -> dict[str, Any]:
    """Everything compared, ready for JSON: values that are not finite are null."""
    runs = [
        {
            "path": str(r.folder),
            "name": name,
            "recipe": r.config.recipe,
            "seed": r.config.training.seed,
            "step": r.step,
            "steps": r.config.training.steps,
            "group": c.group_of(i),
        }
        for i, (r, name) in enumerate(zip(c.records, c.names, strict=True))
    ]
    groups = [{"label": g.label, "settings": g.settings, "runs": [c.names[i] for i in g.runs]} for g in c.groups]
    return plain({"runs": runs, "groups": groups, "tables": [table_dict(c, t) for t in c.tables], "notes": c.notes})


def table_dict(c: Comparison, table: Table) -> dict[str, Any]:
    def group(runs: Sequence[int]) -> dict[str, Any]:
        values = {m: v for m in table.columns if (v := table.of(runs, m))}
        return {m: {"mean": mean(v), "std": deviation(v), "n": len(v)} for m, v in values.items()}

    return {
        "title": table.title,
        "at": table.at,
        "protocol": table.protocol,
        "names": table.columns,
        "groups": [group(g.runs) for g in c.groups],
        "runs": [{"step": s, **v} for s, v in zip(table.steps, table.values, strict=True)],
    }


def plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {k: plain(v) for k, v in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(v) for v in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
