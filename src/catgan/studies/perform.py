"""One run of a study: train, or go on training, then measure, then write its record."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from catgan.config_io import load_yaml
from catgan.errors import UserError
from catgan.evaluation.alignment import MEASURES, diagnose_pipeline
from catgan.evaluation.attention import diagnose_attention
from catgan.evaluation.evaluate import evaluate
from catgan.evaluation.protocol import Result, versions
from catgan.images import grid, save_png, to_bytes, visible
from catgan.sampling.pipeline import CATPipeline, load, load_discriminator
from catgan.studies.design import Run
from catgan.studies.records import RunRecord, other_fields, path_of, recorded, summary, write_record
from catgan.system.devices import processor
from catgan.system.files import read_json, read_rows, write_text
from catgan.system.lock import exclusive
from catgan.training.run import train
from catgan.training.scalars import DivergedError
from catgan.version import __version__

PSI = (0.85, 0.7)  # truncations at which the images are measured beside psi = 1
SHEET = 12  # samples beside each other on a sample sheet
SOURCES = ".sources.json"  # hidden: a run starts in an empty folder
ROWS = 3  # of samples above the stages


def perform(run: Run, runs: Path, records: Path) -> Path:
    """Returns the record's file. Goes on where an earlier call was interrupted; waits for another process that does it.

    runs: folder of the run directories. A run that diverges leaves a record of that. Raises UserError for a run directory
    or record of another configuration.
    """
    out, config = runs / run.name, run.config
    with exclusive(runs / f"{run.name}.lock", f"waiting for another process to end {run.name}"):
        if recorded(records, run) is not None:
            return path_of(records, run)
        begun = (out / "config.yaml").exists()
        if begun and (found := other_fields(load_yaml(out / "config.yaml"), config)):
            raise UserError(
                f"{out} is a run of another configuration ({', '.join(found)}): delete it, or use another --runs"
            )
        source = sources(out)
        try:
            train(config, out, resume=begun, quiet=True)
        except DivergedError as error:
            return write_record(records, described(run, source, {}, {}, diverged=str(error).partition(";")[0]))
        torch.set_num_threads(config.training.threads or torch.get_num_threads())
        pipe = load(out)
        record = measured(run, out, pipe, source)
        save_png(sample_sheet(pipe), path_of(records, run).with_suffix(".png"))
        return write_record(records, record)


def measured(run: Run, out: Path, pipe: CATPipeline, source: list[dict[str, Any]]) -> RunRecord:
    """The record of a trained run."""
    testbed = run.testbed
    aligned = diagnose_pipeline(pipe)
    final = summary({m: getattr(aligned, m) for m in MEASURES})
    results = {psi: measure(pipe, run, psi) for psi in (1.0, *PSI)}
    final |= {name: results[1.0].metrics[name] for name in testbed.metrics}
    if run.config.objective.supervision == "pyramid":  # else there are no scales to attend to
        attention = diagnose_attention(pipe, load_discriminator(out), None)
        final["cross_scale_attention"] = attention.off_diagonal("generated")
    several = len(run.config.sample.scales) > 1
    curves = courses(read_rows(out / "metrics.jsonl"), testbed.metrics, several)
    truncated = {f"{psi:g}": {n: results[psi].metrics[n] for n in testbed.metrics} for psi in PSI}
    return described(run, source, curves, final, truncated, results[1.0].to_dict()["protocol"])


def described(
    run: Run,
    source: list[dict[str, Any]],
    curves: dict[str, list[float]],
    final: dict[str, float],
    truncated: dict[str, dict[str, float]] | None = None,
    protocol: dict[str, Any] | None = None,
    diverged: str = "",
) -> RunRecord:
    """These numbers with all that is to be known of where they come from."""
    return RunRecord(
        study=run.variant.study,
        testbed=run.testbed.name,
        variant=run.variant.name,
        seed=run.seed,
        command=run.command,
        commit=", then ".join(s["commit"] for s in source),
        changed=any(s["changed"] for s in source),
        config=run.config,
        machine=machine(),
        versions=versions(),
        began=source[0]["began"],
        cpu_seconds=curves["cpu_seconds"][-1] if curves else 0.0,
        curves=curves,
        final=final,
        truncated=truncated or {},
        protocol=protocol or {},
        diverged=diverged,
    )


def measure(pipe: CATPipeline, run: Run, psi: float) -> Result:
    e = run.config.eval
    return evaluate(
        pipe, features=e.features, metrics=e.metrics, device=str(pipe.device), samples=run.testbed.samples, psi=psi
    )


def courses(rows: Sequence[Mapping[str, float]], metrics: Sequence[str], several: bool) -> dict[str, list[float]]:
    """The numbers of a run at the steps that have all of them, and the CPU seconds of training up to there.

    several: whether there are stages to diagnose. CPU seconds: the median over log entries, times the steps. So neither
    interruptions nor what else the machine did count.
    """
    found: dict[str, list[float]] = {"step": [], "cpu_seconds": []}
    timed = [row for row in rows if "cpu_seconds" in row]
    lengths = [b["step"] - a["step"] for a, b in pairwise([{"step": 0.0}, *timed])]
    per_step = statistics.median(row["cpu_seconds"] / n for row, n in zip(timed, lengths, strict=True))
    for row in rows:
        aligned = {m: stages(row, m) for m in MEASURES}
        if (several and not all(aligned.values())) or not all(f"eval/{m}" in row for m in metrics):
            continue
        numbers = summary(aligned) | {m: row[f"eval/{m}"] for m in metrics}
        for name, value in {"step": row["step"], "cpu_seconds": per_step * row["step"], **numbers}.items():
            found.setdefault(name, []).append(value)
    if not found["step"]:
        raise UserError("the run has no step with both a diagnosis and an evaluation")
    return found


def stages(row: Mapping[str, float], measure: str) -> list[float]:
    """A diagnosed measure, by stage."""
    prefix = f"diagnose/{measure}/"
    return [row[n] for n in sorted(n for n in row if n.startswith(prefix) and n.removeprefix(prefix).isdigit())]


def sample_sheet(pipe: CATPipeline) -> Any:
    """A picture: rows of samples, not selected, then under more of them h_0..h_K of each as a column."""
    classes = pipe.config.sample.classes
    seeds = range(SHEET * (ROWS + 1))
    made = pipe([i % classes for i in seeds], list(seeds), stages=True)
    assert made.stages is not None
    final = to_bytes(visible(made.stages[-1, : SHEET * ROWS]))
    below = [list(to_bytes(visible(stage[SHEET * ROWS :]))) for stage in made.stages]
    rows = [list(final[i : i + SHEET]) for i in range(0, len(final), SHEET)]
    gap = [np.full_like(final[0], 255)] * SHEET
    return grid([*rows, gap, *below], max(1, 32 // pipe.config.sample.size))


# -- where it ran ------------------------------------------------------------------------------------------------------


def sources(out: Path) -> list[dict[str, Any]]:
    """What trained a run: commit, whether the checkout differs from it, and when; of every call that another commit made.

    Kept in the run's directory, from before its first step.
    """
    path = out / SOURCES
    found: list[dict[str, Any]] = read_json(path) if path.exists() else []
    commit, changed = checkout()
    if not found or (found[-1]["commit"], found[-1]["changed"]) != (commit, changed):
        found.append({"commit": commit, "changed": changed, "began": time.strftime("%F %T", time.gmtime())})
        write_text(path, json.dumps(found))
    return found


def checkout() -> tuple[str, bool]:
    """The commit of the code that runs, and whether the code differs from it; "unknown" outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no", "--", ":/src"))
    except (OSError, subprocess.CalledProcessError):
        return f"unknown, catgan {__version__}", False


def machine() -> dict[str, Any]:
    """What the run computed on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(terse=True),
    }
