"""Several hosts, for which network namespaces of this machine stand: one is cut off, the others stop and say so, it returns."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from trainers import TINY, Fault, Trainer, assert_same, elsewhere, enters, finish, is_cut_off, launch, steps

from campaigns.journal import Journal, Row
from catgan.training.parallel import ROLL_CALL

TIMEOUT, TOTAL = 6, 30
BRIDGE, INTERFACE, PORT = "catgan-hosts", "eth0", 29400
OPTIONS = (*TINY, "--batch", "6", "--steps", str(TOTAL), "--training.timeout", str(TIMEOUT))
# How many hosts. Resumed under DDP, three are not bit-identical, probably since its first step adds up in another order.
KINDS = {"ddp": 2, "fsdp2": 3}
MOST = max(KINDS.values())


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cuts", type=int, default=6, help="how often a host is cut off and returns")


def ip(*arguments: object) -> None:
    subprocess.run(["ip", *map(str, arguments)], check=True, capture_output=True)


def host(k: int) -> str:
    return f"catgan-{k}"


def address(k: int) -> str:
    return f"10.77.0.{k + 1}"


@contextmanager
def network() -> Iterator[None]:
    """Hosts that are connected by a switch. Raises CalledProcessError where network namespaces cannot be had."""
    take_down()
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("link", "set", BRIDGE, "up")
        for k in range(MOST):
            ip("netns", "add", host(k))
            ip("link", "add", f"{BRIDGE[:10]}{k}", "type", "veth", "peer", "name", INTERFACE, "netns", host(k))
            ip("link", "set", f"{BRIDGE[:10]}{k}", "master", BRIDGE, "up")
            ip("-n", host(k), "address", "add", f"{address(k)}/24", "dev", INTERFACE)
            for name in ("lo", INTERFACE):
                ip("-n", host(k), "link", "set", name, "up")
        yield
    finally:
        take_down()


def take_down() -> None:
    for arguments in (*(("netns", "delete", host(k)) for k in range(MOST)), ("link", "delete", BRIDGE)):
        subprocess.run(["ip", *arguments], capture_output=True)


def campaign(o: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    """Do what is not done yet; the table tells what each case found."""
    names = ["torchrun", *(f"{kind}-{i}" for i in range(o.cuts) for kind in KINDS)][: 1 + o.cuts]
    with network():
        rows = journal.perform(names, Hosts(o.runs / "hosts").case)
    table = [["case", "what happened", "the others stopped after", "at the end"]]
    for row in rows:
        seconds = f"{row['stopped']:.1f} s" if row.get("stopped") else "-"
        table.append(
            [
                row["case"],
                row.get("told", row.get("failed", "")),
                seconds,
                "failed" if "failed" in row else "bit-identical",
            ]
        )
    return {"table": table, "failed": sum("failed" in row for row in rows), "cases": rows}


class Hosts:
    """A campaign in a folder of its own; the run's folder is on a disk that all hosts share."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, folder / "said"
        self.plain: dict[str, Path] = {}
        shutil.rmtree(folder, ignore_errors=True)
        self.said.mkdir(parents=True)

    def undisturbed(self, kind: str) -> Path:
        """A run whose processes are on one host."""
        if kind not in self.plain:
            out = self.folder / f"plain-{kind}"
            finish(
                launch(
                    ["train", "digits", "--out", str(out), *OPTIONS, "--training.parallel", kind],
                    self.said,
                    KINDS[kind],
                )
            )
            self.plain[kind] = out
        return self.plain[kind]

    def case(self, name: str, chance: random.Random) -> Row:
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        return self.by_torchrun(run) if name == "torchrun" else self.cut(run, name.partition("-")[0], chance)

    def start(self, run: Path, kind: str, cut: tuple[int, int] | None = None) -> list[Trainer]:
        """A process on each host, their clocks days apart. cut: a host, and the step in which it loses its connection."""
        faults: dict[int, list[Fault]] = {}
        for k in range(KINDS[kind]):
            namespace = Path("/run/netns") / host(k)
            faults[k] = [
                partial(enters, namespace, address(0), PORT, INTERFACE),
                partial(elsewhere, 1e5 * k, host(k)),
            ]
            if cut and cut[0] == k:
                faults[k].append(partial(is_cut_off, cut[1], INTERFACE))
        again = ("--resume",) if (run / "config.yaml").exists() else ()
        argv = ["train", "digits", "--out", str(run), *OPTIONS, "--training.parallel", kind, *again]
        return launch(argv, self.said, KINDS[kind], faults)

    def cut(self, run: Path, kind: str, chance: random.Random) -> Row:
        """One host is cut off; the others say which; it returns, and the run goes on."""
        plain, lost, step = self.undisturbed(kind), chance.randrange(KINDS[kind]), chance.randint(2, 12)
        trainers = self.start(run, kind, (lost, step))
        others = [k for k in range(KINDS[kind]) if k != lost]
        while not is_down(lost):
            if any(t.process.exitcode is not None for t in trainers):
                raise AssertionError([t.said for t in trainers])
            time.sleep(0.05)
        began = time.monotonic()
        codes = [trainers[k].end(TIMEOUT + 2 * ROLL_CALL + 30) for k in others]
        stopped = time.monotonic() - began
        assert codes == [1] * len(others), [t.said for t in trainers]
        errors = [line for k in others for line in trainers[k].said.splitlines() if line.startswith("catgan")]
        named = f"rank {lost} did not come" if lost else "rank 0 is gone"
        assert errors, [t.said for t in trainers]
        assert all(named in line for line in errors), errors
        assert "Traceback" not in "".join(t.said for t in trainers)
        assert trainers[lost].end() == 1, trainers[lost].said
        ip("-n", host(lost), "link", "set", INTERFACE, "up")
        at = steps(run)[-1]
        finish(self.start(run, kind))
        assert_same(run, plain)
        return {
            "told": f"host {lost} cut off in step {step}, returned at {at}; {errors[0].partition('error: ')[2]}",
            "stopped": stopped,
        }

    def by_torchrun(self, run: Path) -> Row:
        """torchrun on every host, which meet at an address; nothing is disturbed."""
        world, started = KINDS["ddp"], []
        how = ["--nnodes", str(world), "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "hosts"]
        how += ["--rdzv-endpoint", f"{address(0)}:{PORT + 1}"]
        for k in range(world):
            # torchrun looks for its own address under the machine's name, which all namespaces share.
            mine = ["--rdzv-conf", f"is_host={k == 0}", "--local-addr", address(k)]
            argv = ["ip", "netns", "exec", host(k), sys.executable, "-m", "torch.distributed.run", *how, *mine]
            argv += ["-m", "catgan", "train", "digits", "--out", str(run), *OPTIONS]
            file = (self.said / f"torchrun-{k}.txt").open("w")
            environment = os.environ | {"GLOO_SOCKET_IFNAME": INTERFACE, "OMP_NUM_THREADS": "1"}
            started.append((subprocess.Popen(argv, stdout=file, stderr=file, env=environment), file))
        try:
            codes = [process.wait(240) for process, _ in started]
        finally:
            for process, file in started:
                process.kill()
                process.wait()
                file.close()
        assert codes == [0] * world, (self.said / "torchrun-0.txt").read_text()[-1500:]
        assert_same(run, self.undisturbed("ddp"))
        return {"told": f"{world} hosts met at {address(0)}"}


def is_down(k: int) -> bool:
    """Whether a host has lost its connection."""
    said = subprocess.run(["ip", "-n", host(k), "-br", "link", "show", INTERFACE], capture_output=True, text=True)
    return " UP " not in said.stdout
