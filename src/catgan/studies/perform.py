"""One run of a study: train, or go on training, then measure, then write its record."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
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
from catgan.studies.catalogue import Run
from catgan.studies.records import RunRecord, other_fields, summary, write_record
from catgan.system.files import read_rows
from catgan.training.run import train
from catgan.version import __version__

PSI = (0.85, 0.7)  # truncations at which the images are measured beside psi = 1
SHEET = 12  # samples beside each other on a sample sheet
ROWS = 3  # of samples above the stages


def perform(run: Run, runs: Path, records: Path) -> Path:
    """Returns the record's file. Goes on where an earlier call was interrupted.

    runs: folder of the run directories. Raises UserError for a run directory of another configuration.
    """
    out, config, source = runs / run.name, run.config, checkout()  # now: the code may change while this trains
    begun = (out / "config.yaml").exists()
    if begun and (found := other_fields(load_yaml(out / "config.yaml"), config)):
        raise UserError(
            f"{out} is a run of another configuration ({', '.join(found)}): delete it, or use another --runs"
        )
    train(config, out, resume=begun, quiet=True)
    torch.set_num_threads(config.training.threads or torch.get_num_threads())
    began = (out / "config.yaml").stat().st_mtime
    record = measured(run, out, began, source)
    sheet = records / run.variant.study / run.testbed.name / f"{run.variant.name}.png"
    if not sheet.exists():
        save_png(sample_sheet(load(out)), sheet)
    return write_record(records, record)


def measured(run: Run, out: Path, began: float, source: tuple[str, bool]) -> RunRecord:
    """The record of a trained run. source: the commit that trained it, and whether the checkout differed."""
    pipe, testbed = load(out), run.testbed
    aligned = diagnose_pipeline(pipe)
    final = summary({m: getattr(aligned, m) for m in MEASURES})
    results = {psi: measure(pipe, run, psi) for psi in (1.0, *PSI)}
    whole = results[1.0]
    final |= {name: whole.metrics[name] for name in testbed.metrics}
    if run.config.objective.supervision == "pyramid":  # else there are no scales to attend to
        attention = diagnose_attention(pipe, load_discriminator(out), None)
        final["cross_scale_attention"] = attention.off_diagonal("generated")
    curves = courses(read_rows(out / "metrics.jsonl"), testbed.metrics, len(run.config.sample.scales) > 1)
    return RunRecord(
        study=run.variant.study,
        testbed=testbed.name,
        variant=run.variant.name,
        seed=run.seed,
        command=run.command,
        commit=source[0],
        changed=source[1],
        config=run.config,
        machine=machine(),
        versions=versions(),
        began=time.strftime("%F %T", time.gmtime(began)),
        cpu_seconds=curves["cpu_seconds"][-1],
        curves=curves,
        final=final,
        truncated={f"{psi:g}": {n: results[psi].metrics[n] for n in testbed.metrics} for psi in PSI},
        protocol=whole.to_dict()["protocol"],
    )


def measure(pipe: CATPipeline, run: Run, psi: float) -> Result:
    e = run.config.eval
    return evaluate(
        pipe, features=e.features, metrics=e.metrics, device=str(pipe.device), samples=run.testbed.samples, psi=psi
    )


def courses(rows: Sequence[Mapping[str, float]], metrics: Sequence[str], several: bool) -> dict[str, list[float]]:
    """The numbers of a run at the steps that have all of them, and the CPU seconds of training up to there.

    several: whether there are stages to diagnose.
    """
    found: dict[str, list[float]] = {"step": [], "cpu_seconds": []}
    spent = 0.0
    for row in rows:
        spent += row.get("cpu_seconds", 0.0)
        aligned = {m: stages(row, m) for m in MEASURES}
        if (several and not all(aligned.values())) or not all(f"eval/{m}" in row for m in metrics):
            continue
        numbers = summary(aligned) | {m: row[f"eval/{m}"] for m in metrics}
        for name, value in {"step": row["step"], "cpu_seconds": spent, **numbers}.items():
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
    info = Path("/proc/cpuinfo")
    models = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(models) or None,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(terse=True),
    }
