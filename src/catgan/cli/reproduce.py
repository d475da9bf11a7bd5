"""`catgan reproduce`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from catgan.bounds import Count
from catgan.cli.parse import parse
from catgan.errors import UserError, check_known
from catgan.system.progress import counted
from catgan.system.tables import aligned

if TYPE_CHECKING:
    from catgan.studies.design import Run, Study

DESCRIPTION = """Run the paper's experiments, or list them.

Each run trains one variant with one seed on one thread, is measured, and leaves a record. What has a record is not run
again; what was interrupted goes on.

  catgan reproduce                                    # the studies: question, runs, what is recorded
  catgan reproduce lambda --jobs 2                    # what is missing of one of them
  catgan reproduce consistency --testbeds digits --variants on --seeds 0
  catgan reproduce --report                           # docs/results.md and its figures, from the records
  catgan reproduce lambda --scale paper --gpus 8      # the ImageNet runs: configurations, commands, sbatch files
"""


@dataclass(frozen=True)
class ReproduceOptions:
    studies: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="STUDY")] = ()
    """Which to run; none: list them, or with --report write the page."""
    list: bool = False
    """List the studies, and of those that are named the runs."""
    testbeds: tuple[str, ...] = ()
    """Only on these; default: all of a study."""
    variants: tuple[str, ...] = ()
    """Only these; default: all of a study."""
    seeds: tuple[int, ...] = ()
    """Only these; default: 0, 1, 2, and more where a study asks for them."""
    jobs: Count = 1
    """Runs at a time, on one thread each."""
    report: bool = False
    """Write results.md and its figures from the records."""
    scale: Literal["laptop", "paper"] = "laptop"
    """paper: write the study's ImageNet runs to --out; under torchrun, start the one that --variants and --seeds name."""
    gpus: Count = 8
    """GPUs of a run at the paper's scale."""
    records: Path = Path("records")
    """Folder of the records."""
    runs: Path = Path("runs/reproduce")
    """Folder of the run directories."""
    docs: Path = Path("docs")
    """Folder of the page."""
    data: Path | None = None
    """What catgan prepare made of ImageNet, for a run that torchrun starts."""
    out: Path = Path("runs/paper")
    """Folder of the runs at the paper's scale."""


def main(argv: Sequence[str]) -> None:
    o = parse(ReproduceOptions, argv, "reproduce", description=DESCRIPTION)

    from catgan.studies.catalogue import STUDIES, runs_of

    for name in o.studies:
        check_known("study", name, STUDIES)
    studies = [STUDIES[name] for name in o.studies]
    if o.report:
        report(o)
    elif not studies or o.list:
        print(listed(studies, o) if studies else overview(list(STUDIES.values()), o.records))
    elif o.scale == "paper":
        at_paper_scale(studies, o)
    else:
        run(runs_of(studies, o.testbeds, o.variants, o.seeds), o)


def run(runs: list[Run], o: ReproduceOptions) -> None:
    """Do what has no record, and say what to do next. Raises SystemExit if a run failed."""
    from catgan.studies.queue import Queue
    from catgan.studies.records import recorded

    missing = [r for r in runs if recorded(o.records, r) is None]
    if missing:
        hours = sum(r.testbed.minutes for r in missing) / 60
        print(
            f"{counted(len(missing), 'run')} of {len(runs)}, about {hours:.1f} core hours, {o.jobs} at a time",
            flush=True,
        )
        failed = Queue(missing, o.runs, o.records, o.jobs).work()
        if failed:
            raise UserError(f"{counted(len(failed), 'run')} of {len(missing)} failed: {', '.join(failed)}")
    print(f"{counted(len(runs), 'run')} recorded in {o.records}\nnext: catgan reproduce --report")


def report(o: ReproduceOptions) -> None:
    from catgan.studies.results import Results

    if not o.records.is_dir():
        raise UserError(f"--records is {o.records}: no such folder; run a study first, see catgan reproduce")
    for path in Results(o.records).write(o.docs):
        print(path)


def overview(studies: Sequence[Study], records: Path) -> str:
    """All studies, and how much of each is recorded."""
    from catgan.studies.catalogue import runs_of
    from catgan.studies.records import path_of

    def counts(runs: list[Run]) -> tuple[str, str, str]:
        """How many there are, how many are recorded, and what all of them take."""
        done = sum(path_of(records, r).exists() for r in runs)
        return str(len(runs)), str(done), f"{sum(r.testbed.minutes for r in runs) / 60:.1f}"

    rows: list[Sequence[str]] = [("study", "runs", "recorded", "core hours", "question", "paper")]
    rows += [(s.name, *counts(runs_of([s])), s.question, s.figure) for s in studies]
    total, done, hours = counts(runs_of(studies))
    return (
        aligned(rows, (0, 4, 5))
        + f"\n\nRuns that studies share are made once: {total} in all, {done} recorded, {hours} core hours.\n"
        + "next: catgan reproduce STUDY --list    catgan reproduce STUDY --jobs 2"
    )


def listed(studies: Sequence[Study], o: ReproduceOptions) -> str:
    """The claims of studies, and their runs."""
    from catgan.studies.catalogue import runs_of
    from catgan.studies.records import path_of

    parts = []
    for study in studies:
        runs = runs_of([study], o.testbeds, o.variants, o.seeds)
        claims: list[Sequence[str]] = [("claim", "paper"), *((c.text, c.paper) for c in study.claims)]
        rows: list[Sequence[str]] = [("run", "about", "minutes", "record")]
        for r in runs:
            rows.append(
                (r.name, r.variant.about, f"{r.testbed.minutes:g}", "yes" if path_of(o.records, r).exists() else "-")
            )
        parts.append(f"{study.name}: {study.question}\n\n{aligned(claims, (0, 1))}\n\n{aligned(rows, (0, 1))}")
    return "\n\n".join(parts)


def at_paper_scale(studies: Sequence[Study], o: ReproduceOptions) -> None:
    """Write the runs, or start one under torchrun."""
    from catgan.cli.train import on_data
    from catgan.studies.paper import paper_runs, start, write

    if o.testbeds:
        raise UserError("--testbeds is given: runs at the paper's scale have none, leave it out")
    runs = [r for s in studies for r in paper_runs(s, o.seeds)]
    for variant in o.variants:
        check_known("--variants", variant, dict.fromkeys(r.variant.name for r in runs))
    runs = [r for r in runs if not o.variants or r.variant.name in o.variants]
    if "RANK" in os.environ:
        if len(runs) != 1:
            raise UserError(f"{len(runs)} runs are named: under torchrun name one, by --variants and --seeds")
        if o.data is None:
            raise UserError("--data is missing: must be the folder that catgan prepare made of ImageNet")
        start(runs[0], partial(on_data, folder=o.data, keep_sample=False), o.out)
        return
    print(write(runs, o.out, o.gpus))
