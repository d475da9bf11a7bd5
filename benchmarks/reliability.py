"""Is nothing lost, and does nothing get in? `python benchmarks/reliability.py kills`, and so on: see --help.

Each campaign draws its cases from a seed, notes each in RUNS when it is done, and goes on there when it is called again.
What was found goes to records/reliability: as JSON, and as the table that the documentation shows.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from campaigns import coverage, fuzz, hosts, kills, long, tools, visitors
from campaigns.journal import Journal
from catgan.evaluation.protocol import versions
from catgan.studies.perform import machine
from catgan.system.files import write_text

ROOT = Path(__file__).resolve().parents[1]
Found = dict[str, Any]  # with `table`: a list of rows, the first of them the head; and `failed`: how many cases
Campaign = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace, Journal], Found]]

CAMPAIGNS: dict[str, Campaign] = {
    "kills": ("runs that are killed, stopped, starved and damaged on their way", kills.options, kills.campaign),
    "tools": ("commands that are killed and called again", tools.options, tools.campaign),
    "fuzz": ("bad input to every reader", fuzz.options, fuzz.campaign),
    "atheris": ("readers of what strangers made, led by coverage", coverage.options, coverage.campaign),
    "hosts": ("several hosts, one of which is cut off and returns", hosts.options, hosts.campaign),
    "long": ("one long run: memory, files and logs", long.options, long.campaign),
    "studio": ("the studio under many pages at once", visitors.options, visitors.campaign),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="name", required=True, metavar="CAMPAIGN")
    for name, (about, options, _) in CAMPAIGNS.items():
        command = commands.add_parser(name, help=about, description=about)
        options(command)
        command.add_argument("--seed", default="0", help="which random cases")
        command.add_argument("--runs", type=Path, default=ROOT / "runs" / "reliability", help="where it works")
        command.add_argument("--out", type=Path, default=ROOT / "records" / "reliability", help="folder of the record")
    o = parser.parse_args(argv)
    journal = Journal(o.runs / f"{o.name}.jsonl", o.seed)
    found = CAMPAIGNS[o.name][2](o, journal)
    commits = list(dict.fromkeys(row["commit"] for row in journal.rows.values()))
    plain = {action.dest: action.default for action in commands.choices[o.name]._actions}
    changed = {n: v for n, v in vars(o).items() if n not in ("name", "runs", "out") and v != plain[n]}
    given = [
        f"--{n}" if v is True else f"--{n} {shlex.join(v) if isinstance(v, list) else v}" for n, v in changed.items()
    ]
    record = {
        "command": " ".join(["python benchmarks/reliability.py", o.name, *given]),
        "seed": o.seed,
        "commit": ", then ".join(commits),
        "machine": machine(),
        "versions": versions(),
        "seconds": round(sum(row["seconds"] for row in journal.rows.values()), 1),
        **found,
    }
    path = o.out / f"{o.name}.json"
    write_text(path, json.dumps(record, indent=2) + "\n")
    write_text(path.with_suffix(".md"), table(record) + "\n")
    print(f"{table(record)}\n\n{path}")
    return 1 if found["failed"] else 0


def table(record: Found) -> str:
    """A record's table in Markdown."""
    head, *rows = record["table"]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    sys.exit(main())
