"""`catgan report RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from catgan.cli.parse import parse

DESCRIPTION = """Write a page about a run, finished or not: samples, losses, alignment, evaluation, configuration.

One HTML file that needs nothing else. Reads the run directory only; no network is run.
"""


@dataclass(frozen=True)
class ReportOptions:
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    out: Path | None = None
    """File to write; default: report.html in the run directory."""


def main(argv: Sequence[str]) -> None:
    o = parse(ReportOptions, argv, "report", description=DESCRIPTION)

    from catgan.report.records import read_run
    from catgan.report.run_page import write_run_page

    record = read_run(o.run)
    out = o.out or o.run / "report.html"
    write_run_page(record, out)
    print(out)
