"""`catgan compare RUN...`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from catgan.cli.parse import parse
from catgan.system.packages import installed

DESCRIPTION = """Put runs beside each other: alignment and evaluation in a table, curves on one page.

Runs that differ only by training.seed (or by device, threads, logging and checkpoints) are a group, with mean and
standard deviation; runs with other losses or of another length are not. Writes compare.html and compare.json.

  catgan compare runs/with-0 runs/with-1 runs/without-0 runs/without-1 --out comparison
"""


@dataclass(frozen=True)
class CompareOptions:
    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...")]
    """Run directories."""
    at: Literal["common", "last"] = "common"
    """Step of the tables: the last one that the runs have in common, or each run's last."""
    json: bool = False
    """Print the JSON instead of the tables."""
    out: Path = Path("comparison")
    """Folder to write to."""


def main(argv: Sequence[str]) -> None:
    o = parse(CompareOptions, argv, "compare", description=DESCRIPTION)

    from catgan.report.comparison import compare, text, to_dict
    from catgan.system.files import write_text

    comparison = compare(o.runs, o.at)
    content = json.dumps(to_dict(comparison), indent=2, ensure_ascii=False)
    drawn = installed("matplotlib")
    write_text(o.out / "compare.json", content + "\n")
    if drawn:
        from catgan.report.comparison_page import write_comparison

        write_comparison(comparison, o.out / "compare.html")
    if o.json:
        print(content)
        return
    print(text(comparison))
    print(f"\n{o.out / 'compare.json'}")
    print(o.out / "compare.html" if drawn else "no page: pip install 'catgan[plots]'")
