"""Bad input to every reader: it is read, or refused in one line, in time, and nothing else is touched.

Cases run in processes of their own, many in each, so that a crash or a hang is one case's and not the campaign's. What a
case opens is seen by Python's audit events, and with `--trace` by strace: only that sees what libraries open in C.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from trainers import context

from campaigns.journal import Journal, Row
from campaigns.opened import Opened, check_strace, is_traced, strace

SECONDS = 10  # that a case may take
MEMORY = 6 * 2**30  # bytes of address space beyond those that are there
EACH = 500  # cases of a process


class Overdue(BaseException):
    """A case took too long."""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, default=10_000, help="how many, of all readers in turn")
    parser.add_argument("--only", nargs="*", default=[], help="readers")
    parser.add_argument("--trace", action="store_true", help="see by strace what is opened in C, too")


def campaign(o: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    """Do what is not done yet; what came of each reader's cases."""
    from campaigns.readers import READERS

    folder, readers = o.runs / "fuzz", o.only or list(READERS)
    names = [f"{readers[i % len(readers)]}-{i // len(readers)}" for i in range(o.cases)]
    if o.trace:
        check_strace()
    good = ready(folder)
    todo = [name for name in names if name not in journal.rows]
    while todo:
        for name, found in in_a_process(folder, good, journal.seed, todo[:EACH], o.trace):
            row = journal.note(name, **found)
            if "failed" in row:
                print(f"{name}: {row['failed']}", flush=True)
            todo.remove(name)
    return summary([journal.rows[name] for name in names], readers)


def summary(rows: Sequence[Row], readers: Sequence[str]) -> dict[str, Any]:
    """What came of each reader's cases; of traced ones also how many calls of files strace saw."""
    table: list[list[Any]] = [["reader", "cases", "read", "refused in one line", "failed", "slowest"]]
    traced = all("opens" in row for row in rows if "failed" not in row)
    table[0] += ["calls seen by strace"] * traced
    failed = 0
    for reader in readers:
        mine = [row for row in rows if row["case"].rpartition("-")[0] == reader]
        counts = Counter("failed" if "failed" in row else row["came"] for row in mine)
        slowest = max((row["seconds"] for row in mine), default=0)
        failed += counts["failed"]
        table.append([reader, len(mine), counts["read"], counts["refused"], counts["failed"], f"{slowest:.1f} s"])
        table[-1] += [f"{sum(row.get('opens', 0) for row in mine):,}"] * traced
    return {"table": table, "failed": failed, "failures": [row for row in rows if "failed" in row]}


def ready(folder: Path) -> Path:
    """The folder with good input; made in a process of its own, as everything here is."""
    good = folder / "good"
    if not (good / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        good.mkdir(parents=True)
        process = context.Process(target=prepare, args=(good,))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"good input could not be made: {process.exitcode}")
    return good


def prepare(good: Path) -> None:
    from campaigns.readers import make_good

    make_good(good)
    (good / "done").touch()


def in_a_process(folder: Path, good: Path, seed: str, names: Sequence[str], trace: bool) -> Iterator[tuple[str, Row]]:
    """What came of the first cases of these: of all, or up to one that ended the process or did not end."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    seen = folder / "strace" if trace else None
    process = context.Process(target=work, args=(folder, good, seed, list(names), theirs, seen), daemon=True)
    process.start()
    theirs.close()
    tracer = None
    try:
        if seen is not None and process.pid is not None:
            tracer = strace(process.pid, seen)
        for i, name in enumerate(names):
            found: Row | None = None
            with suppress(EOFError):
                if ours.poll(SECONDS * 2 + (60 if i == 0 else 0)):
                    found = ours.recv()
                else:
                    found = {"failed": f"no end after {SECONDS * 2} s", "seconds": SECONDS * 2.0}
                    yield name, found
                    return
            if found is None:
                process.join()
                yield name, {"failed": f"the process ended with {process.exitcode}", "seconds": 0.0}
                return
            yield name, found
        process.join(SECONDS)
    finally:
        process.kill()
        process.join()
        ours.close()
        if tracer is not None:
            tracer.communicate()


# -- in the process of the cases ---------------------------------------------------------------------------------------


def work(
    folder: Path, good: Path, seed: str, names: Sequence[str], answers: Connection, seen: Path | None = None
) -> None:
    """Do cases one after the other, and say what came of each. seen: where strace writes, which is waited for."""
    while seen is not None and not is_traced():
        time.sleep(0.01)
    from campaigns.readers import READERS

    sink = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(sink, stream)
    opened = Opened(seen)
    sys.addaudithook(opened.note)
    with suppress(ValueError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    place = folder / f"at-{os.getpid()}"
    try:
        for name in names:
            reader = READERS[name.rpartition("-")[0]]
            began = time.monotonic()
            try:
                found = case(reader, place, good, random.Random(f"{seed} {name}"), opened)
            except BaseException as error:  # whatever it is, it is what this looks for
                found = {
                    "failed": said(f"{type(error).__name__}: {error}")[:500],
                    "trace": said(traceback.format_exc())[-3000:],
                }
            answers.send({**found, "seconds": round(time.monotonic() - began, 3)})
    finally:
        shutil.rmtree(place, ignore_errors=True)


def case(reader: Any, place: Path, good: Path, chance: random.Random, opened: Opened) -> Row:
    """Make one input and read it. Raises what goes wrong."""
    from campaigns.readers import APART, check_message
    from catgan.errors import UserError

    shutil.rmtree(place, ignore_errors=True)
    given, temporary, here = (place / name for name in ("given", "temporary", "here"))
    for new in (given, temporary, here, place / "outside"):
        new.mkdir(parents=True)
    for kind in ("safetensors", "arrow", "parquet", "png"):
        (place / "outside" / f"secret.{kind}").write_bytes(b"secret")
    reader.make(given, good, chance)
    before = {**listing(place), **listing(good)}
    tempfile.tempdir = str(temporary)
    os.environ |= {"CATGAN_CACHE": str(temporary / "cache"), "HF_HUB_OFFLINE": "1"}
    os.chdir(here)
    came = "read"
    try:
        with limited(SECONDS), opened.watched([given, good, temporary]):
            reader.read(given, good)
    except UserError as error:
        check_message(str(error))
        came = "refused"
    finally:
        os.chdir("/")
    assert not opened.elsewhere, f"opened {opened.elsewhere[:3]}"
    after = {**listing(place), **listing(good)}
    apart = temporary / APART
    changed = [str(p) for p in {**before, **after} if before.get(p) != after.get(p) and apart not in (p, *p.parents)]
    assert not changed, f"left or changed {changed[:3]}"
    return {"came": came, "opens": opened.calls} if opened.trace else {"came": came}


def said(text: str) -> str:
    """A text that every encoding has."""
    return text.encode("utf-8", "backslashreplace").decode()


def listing(folder: Path) -> dict[Path, tuple[int, int]]:
    """All files and folders with their size and time of change; of folders these say nothing."""
    found = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        found[path] = (about.st_size, about.st_mtime_ns) if path.is_file() else (0, 0)
    return found


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raises Overdue after so long, where Python still runs."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Overdue(f"over {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
