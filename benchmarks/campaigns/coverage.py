"""Readers of what strangers made, by input that grows with the code it reaches: atheris (libFuzzer) beside the drawn cases.

It instruments catgan's modules and Python's parsers of archives, starts from inputs of the campaign `fuzz`, and looks for what that does: exceptions
but `UserError`, messages of several lines, crashes, more than 10 seconds, and more than 4 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # nothing of catgan may be imported before it is instrumented
    from campaigns.journal import Journal, Row

TARGETS = ("archive", "export")
PARSERS = ("zipfile", "tarfile")  # which are Python, and do most of the work of an archive
SEEDS = 100  # inputs to begin with
CONFIG, WEIGHTS = "config.json", "model.safetensors"
LIMITS = ("-timeout=10", "-rss_limit_mb=4096", "-max_len=100000", "-len_control=0", "-print_final_stats=1")
COVERED = re.compile(r"^#\d+\s+\w+\s+cov: (\d+)", re.MULTILINE)
RUNS = re.compile(r"^stat::number_of_executed_units: (\d+)", re.MULTILINE)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=20, help="for each reader")
    parser.add_argument("--only", nargs="*", default=list(TARGETS), choices=TARGETS, help="readers")


def campaign(o: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    """Do what is not done yet; what came of each reader."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        raise SystemExit(
            "this campaign needs atheris, which is not installed: pip install atheris (Linux, Python up to 3.13)"
        ) from None

    def work(case: str, chance: random.Random) -> Row:
        return fuzzed(case.rpartition("-")[0], o.runs / "atheris" / case, o.minutes, chance)

    rows = journal.perform([f"{target}-{o.minutes:g}" for target in o.only], work)
    table: list[list[Any]] = [
        ["reader", "minutes", "inputs tried", "edges at the start", "at the end", "inputs kept", "failed"]
    ]
    table += [
        [
            row["reader"],
            f"{o.minutes:g}",
            f"{row['inputs']:,}",
            row["edges"][0],
            row["edges"][1],
            row["kept"],
            len(row["findings"]),
        ]
        for row in rows
        if "failed" not in row or "findings" in row
    ]
    return {
        "table": table,
        "failed": sum("failed" in row for row in rows),
        "failures": [row for row in rows if "failed" in row],
    }


def fuzzed(target: str, folder: Path, minutes: float, chance: random.Random) -> Row:
    """Let atheris look for so long; how many inputs it tried, and what it reached and found."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "inputs").mkdir(parents=True)
    (folder / "found").mkdir()
    argv = [sys.executable, "-m", "campaigns.coverage", target, str(folder), str(chance.getrandbits(31))]
    limits = (
        f"-max_total_time={round(minutes * 60)}",
        f"-seed={chance.getrandbits(31)}",
        f"-artifact_prefix={folder}/found/",
    )
    with (folder / "log").open("w") as log:
        done = subprocess.run(
            [*argv, *LIMITS, *limits], cwd=Path(__file__).parents[1], stdout=log, stderr=log, check=False
        )
    text = (folder / "log").read_text(errors="backslashreplace")
    edges, runs = COVERED.findall(text), RUNS.findall(text)
    if not edges or not runs:
        raise RuntimeError(f"atheris did not run: {text[-1000:]}")
    findings = sorted(path.name for path in (folder / "found").iterdir())
    row: Row = {
        "reader": target,
        "inputs": int(runs[-1]),
        "edges": [int(edges[0]), int(edges[-1])],
        "kept": len(list((folder / "inputs").iterdir())),
        "findings": findings,
    }
    return row | (
        {"failed": f"{findings}, exit code {done.returncode}", "trace": text[-4000:]} if done.returncode else {}
    )


# -- in a process of its own -------------------------------------------------------------------------------------------


def main(target: str, folder: Path, seed: str, *limits: str) -> None:
    """Write the inputs to begin with, and read what atheris makes of them until the time is over."""
    import atheris

    for name in PARSERS:
        sys.modules.pop(name, None)
    with atheris.instrument_imports(include=["catgan", *PARSERS]):
        from campaigns.fuzz import ready
        from campaigns.readers import READERS

    good, chance = ready(folder / "fuzz"), random.Random(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        place = Path(name)
        for i in range(SEEDS):
            READERS[target].make(place, good, chance)
            (folder / "inputs" / f"{i:03d}").write_bytes(one_input(target, place))
            for path in place.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        atheris.Setup(
            [sys.argv[0], str(folder / "inputs"), *limits], {"archive": archive, "export": export}[target](place)
        )
        atheris.Fuzz()


def one_input(target: str, place: Path) -> bytes:
    """A reader's files as one text of bytes: of an export the configuration, a line break and the weights."""
    if target == "archive":
        (path,) = place.iterdir()
        return path.read_bytes()
    try:
        about = json.loads((place / "export" / CONFIG).read_text())
        about.pop("sha256", None)  # an input whose weights have another one would be refused at once
        config = json.dumps(about).encode()
    except (ValueError, AttributeError, RecursionError):
        config = (place / "export" / CONFIG).read_bytes().replace(b"\n", b" ")
    return config + b"\n" + (place / "export" / WEIGHTS).read_bytes()


def archive(place: Path) -> Callable[[bytes], None]:
    from campaigns.readers import check_message
    from catgan.data.decode import to_picture
    from catgan.data.sources import open_source
    from catgan.errors import UserError

    path = place / "a"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            source = open_source(str(path))
            for i in range(min(len(source), 10)):
                try:
                    to_picture(source.read(i), 8, 3, "center")
                except Exception as error:  # as `prepare` does: whatever the reason, it is one broken picture
                    if isinstance(error, MemoryError):
                        raise
        except UserError as error:
            check_message(str(error))

    return read


def export(place: Path) -> Callable[[bytes], None]:
    from campaigns.readers import check_message
    from catgan.errors import UserError
    from catgan.sampling.pipeline import load

    def read(data: bytes) -> None:
        config, _, weights = data.partition(b"\n")
        (place / CONFIG).write_bytes(config)
        (place / WEIGHTS).write_bytes(weights)
        try:
            load(place)([0], [0]).array  # noqa: B018
        except UserError as error:
            check_message(str(error))

    return read


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
