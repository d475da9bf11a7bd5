"""Commands that are killed at random moments and called again: what they make is complete, and as if nothing had happened."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hub import Hub, serving
from PIL import Image
from trainers import Fault, has_a_quick_testbed, has_small_pieces, knows_another_hub, launch

from campaigns.journal import Journal, Row

PICTURES = 600
TRIES = 5  # until a command is hit before its end
NAMES = ("prepare", "sample", "evaluate", "push", "reproduce")
# Of JSON files: what tells when and how fast, not what.
CLOCKS = ("began", "seconds", "cpu_seconds", "measured", "commit", "changed", "images_per_second")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--each", type=int, default=10, help="how often each command is killed and called again")


def campaign(o: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    """Do what is not done yet; how often each command was killed, and what it made."""
    names = [f"{name}-{i}" for i in range(o.each) for name in NAMES]
    with serving() as hub:
        rows = journal.perform(names, Tools(o.runs / "tools", hub).case)
    table = [["command", "cases", "kills before its end", "complete and identical"]]
    for name in NAMES:
        mine = [row for row in rows if row["case"].startswith(f"{name}-")]
        identical = sum("failed" not in row for row in mine)
        table.append([name, str(len(mine)), str(sum(row.get("kills", 0) for row in mine)), str(identical)])
    return {"table": table, "failed": sum("failed" in row for row in rows), "cases": rows}


class Tools:
    """A campaign in a folder of its own."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub, self.said = folder, hub, folder / "said"
        self.plain: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        shutil.rmtree(folder, ignore_errors=True)
        self.said.mkdir(parents=True)
        for i in range(PICTURES):
            path = folder / "pictures" / "abc"[i % 3] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(i).integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)

    def command(self, name: str, out: Path) -> tuple[list[str], list[Fault]]:
        """A command that works in the folder `out`, and what is prepared for it."""
        match name:
            case "prepare":
                how = ["--size", "16", "--shard-rows", "20", "--workers", "1"]
                return ["prepare", str(self.folder / "pictures"), str(out / "made"), *how], []
            case "sample":
                how = ["--format", "npz", "--count", "400", "--batch", "16", "--device", "cpu"]
                return ["sample", "digits", *how, "--out", str(out / "made")], [has_small_pieces]
            case "evaluate":
                how = ["--features", "classifier", "--count", "300", "--metrics", "distance", "precision_recall"]
                return ["evaluate", "digits", *how, "--device", "cpu", "--out", str(out / "made" / "result.json")], []
            case "push":
                known = partial(knows_another_hub, self.hub.url, out / "cache")
                return ["push", "digits", "me/digits", "--yes"], [known]
        how = ["--testbeds", "digits", "--variants", "on", "--seeds", "0"]
        return ["reproduce", "consistency", *how, "--records", str(out / "made"), "--runs", str(out / "runs")], [
            has_a_quick_testbed
        ]

    def once(self, name: str, out: Path, kill_after: float | None = None) -> int:
        """Call a command, and kill it after some seconds; its exit code."""
        os.environ["CATGAN_CACHE"] = str(out / "catgan")
        argv, faults = self.command(name, out)
        (tool,) = launch(argv, self.said, 1, {0: faults}, daemon=False)
        if kill_after is not None:
            tool.process.join(kill_after)
            with contextlib.suppress(ProcessLookupError):
                tool.process.kill()
        code = tool.end(300)
        assert "Traceback" not in tool.said, tool.said[-2000:]
        assert code in (0, -signal.SIGKILL), tool.said[-2000:]
        return code

    def made(self, name: str, out: Path) -> dict[str, Any]:
        """What a command made: files by name. A kill while it tidies up may leave some of the pieces beside it."""
        if name == "push":
            return dict(self.hub.branches["me/digits"]["main"])
        files = [p for p in sorted((out / "made").rglob("*")) if p.is_file()]
        return {
            str(p.relative_to(out / "made")): timeless(p)
            for p in files
            if p.name[0] != "." and p.parent.suffix != ".parts"
        }

    def undisturbed(self, name: str) -> dict[str, Any]:
        """What a command makes; the seconds that it takes are then known."""
        if name not in self.plain:
            for _ in range(2):  # the first one waits for libraries to be loaded
                out, began = self.fresh(), time.monotonic()
                assert self.once(name, out) == 0
            self.plain[name], self.seconds[name] = self.made(name, out), time.monotonic() - began
        return self.plain[name]

    def fresh(self) -> Path:
        self.hub.branches.clear()
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return out

    def case(self, case: str, chance: random.Random) -> Row:
        name = case.partition("-")[0]
        expected = self.undisturbed(name)
        for _ in range(TRIES):
            out, kills = self.fresh(), 0
            for _ in range(chance.randint(1, 3)):
                began = time.monotonic()
                if self.once(name, out, chance.uniform(0, self.seconds[name])) == 0:
                    if not kills:  # what it takes depends on what else the machine does
                        self.seconds[name] = time.monotonic() - began
                    break
                kills += 1
            if kills:
                break
        # Some commands refuse to do again what is done.
        finished = name == "sample" and (out / "made" / "samples.npz").exists()
        assert finished or self.once(name, out) == 0
        found = self.made(name, out)
        assert found.keys() == expected.keys(), (sorted(found), sorted(expected))
        assert [file for file in found if found[file] != expected[file]] == []
        return {"kills": kills, "told": f"{kills} kills, {len(found)} files as without"}


def timeless(path: Path) -> Any:
    """A file's content, of JSON without times."""
    return without_clocks(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()


def without_clocks(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: without_clocks(v) for k, v in tree.items() if k not in CLOCKS}
    return [without_clocks(v) for v in tree] if isinstance(tree, list) else tree
