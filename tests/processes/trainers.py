"""Whole programs, above all `catgan train`, as processes that start in a moment: forked from a server that has imported torch.

What goes wrong in them is a function that such a process calls first; the faults are at the end.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from catgan.checkpoint import reading as checkpoint

Fault = Callable[[], None]
NEW_NETWORK = 0x40000000  # CLONE_NEWNET of Linux

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        *("catgan.training.run", "catgan.cli.train", "torch.utils.tensorboard", "sklearn.datasets"),
        *("torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor", "torch.nn.parallel"),
    ]
)

# Two scales and a few thousand weights: a step takes milliseconds.
TINY = [
    *"--sample.scales 4 8 --generator.depth 2 --generator.width 16 --generator.heads 2 --generator.patch 4".split(),  # noqa: SIM905
    *"--discriminator.depth 1 --discriminator.width 16 --discriminator.heads 2 --discriminator.head-dim 16".split(),  # noqa: SIM905
    *"--discriminator.patches 4 4 --batch 8 --training.threads 1 --device cpu --training.no-compile".split(),  # noqa: SIM905
    *"--log.every 1 --log.preview-every 100000 --log.diagnose-every 100000 --log.diagnose-samples 10".split(),  # noqa: SIM905
    *"--checkpoint.every 1 --eval.every 0".split(),  # noqa: SIM905
]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


class Trainer:
    """A running command of catgan, or one of several processes that share its work."""

    def __init__(self, process: Any, said: Path) -> None:
        self.process, self.file = process, said

    def kill(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self, seconds: float = 120) -> int:
        """The exit code, or the negative number of the signal that ended it."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running after {seconds} s: {self.said}")
        code: int = self.process.exitcode
        return code

    @property
    def said(self) -> str:
        """Its output so far, of both kinds."""
        return self.file.read_text()


def start(
    run: Path, *options: str, world: int = 1, faults: Sequence[Fault] = (), faulty: int = 0, said: Path | None = None
) -> list[Trainer]:
    """Start all processes of a run. faults: of the process of rank `faulty`. said: the folder for what they print."""
    arguments = ["train", "digits", "--out", str(run), *TINY, *options]
    return launch(arguments, said or run.parent, world, {faulty: faults})


def launch(
    arguments: Sequence[str],
    said: Path,
    world: int,
    faults: Mapping[int, Sequence[Fault]] | None = None,
    daemon: bool = True,
) -> list[Trainer]:
    """Start a command in so many processes that know each other. said: the folder for what they print.

    daemon: they end with this process, and can start none themselves.
    """
    port, trainers = free_port(), []
    for rank in range(world):
        more = {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        if world > 1:
            more |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | more
        file = said / f"said-{time.monotonic_ns()}.txt"
        file.touch()
        mine = (faults or {}).get(rank, ())
        process = context.Process(target=work, args=(arguments, environment, file, mine), daemon=daemon)
        process.start()
        trainers.append(Trainer(process, file))
    return trainers


def work(arguments: Sequence[str], environment: dict[str, str], said: Path, faults: Sequence[Fault]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with said.open("a") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    for fault in faults:
        fault()
    from catgan.cli.main import main

    sys.exit(main(list(arguments)))


def finish(trainers: list[Trainer]) -> str:
    """What the first process said, after all have succeeded."""
    for trainer in trainers:
        assert trainer.end() == 0, trainer.said
    return trainers[0].said


def until(condition: Callable[[], bool], said: Callable[[], str], seconds: float = 90) -> None:
    """Wait for what running processes are to reach."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, said()
        time.sleep(0.01)


# -- what a run left -------------------------------------------------------------------------------------------------


def entries(run: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what depends on the clock."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in r.items() if not k.startswith(("images_per_second", "cpu_seconds", "time/", "memory/"))}
        for r in rows
    ]


def steps(run: Path) -> list[int]:
    """The steps of its checkpoints."""
    return [int(path.name.removeprefix("step-")) for path in checkpoint.listed(run / "checkpoints")]


def assert_same(run: Path, plain: Path) -> None:
    """Weights, optimisers, position in the data and all scalars, to the last bit."""
    assert_same_state(run, plain)
    assert entries(run) == entries(plain)


def assert_same_state(run: Path, plain: Path) -> None:
    """Weights, optimisers and position in the data, to the last bit."""
    newest = [checkpoint.listed(r / "checkpoints")[-1] for r in (run, plain)]
    (header, mine), (expected_header, expected) = (checkpoint.read(path) for path in newest)
    assert (header.step, header.samples) == (expected_header.step, expected_header.samples)
    assert mine.keys() == expected.keys()
    assert [name for name in mine if not torch.equal(mine[name], expected[name])] == []


# -- faults ----------------------------------------------------------------------------------------------------------


def dies_in_save(flush: int) -> None:
    """Killed where a checkpoint's file or folder would be flushed to the disk for the n-th time, from 1 on."""
    from catgan.checkpoint import saving

    real, count = saving.flush, 0

    def counted(path: Path) -> None:
        nonlocal count
        count += 1
        if count == flush:
            os.kill(os.getpid(), signal.SIGKILL)
        real(path)

    saving.flush = counted


def dies_in_resume(network: int) -> None:
    """Killed where the n-th network of a checkpoint would be put in place, from 1 on."""
    real, count = checkpoint.load_network, 0

    def counted(*arguments: Any, **named: Any) -> None:
        nonlocal count
        count += 1
        if count == network:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*arguments, **named)

    checkpoint.load_network = counted


def signalled(step: int, number: int) -> None:
    """Gets a signal in the middle of a step; it may be SIGKILL or SIGSTOP."""
    meets(step, lambda: os.kill(os.getpid(), number))


def stalls(step: int, seconds: float) -> None:
    """Keeps the others waiting in the middle of a step."""
    meets(step, lambda: time.sleep(seconds))


def short_of_disk(step: int, size: int) -> None:
    """From a step on, no file can become larger than so many bytes."""
    meets(step, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)))


def fills_the_disk(step: int, filler: Path) -> None:
    """In a step, something else takes what is left of the disk."""

    def fill() -> None:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))

    meets(step, fill)


def makes_read_only(step: int, folder: Path) -> None:
    """From a step on, nothing can be written to a folder. Needs the right to mount; who uses it unmounts the folder."""

    def mount() -> None:
        for options in (["--bind", folder, folder], ["-o", "remount,bind,ro", folder]):
            subprocess.run(["mount", *options], check=True)

    meets(step, mount)


def enters(namespace: Path, address: str, port: int, interface: str) -> None:
    """Stands on a host of its own: in a network namespace, and meets the others at an address. Needs root."""
    libc = ctypes.CDLL(None, use_errno=True)
    with namespace.open("rb") as file:
        if libc.setns(file.fileno(), NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": interface}


def is_cut_off(step: int, interface: str) -> None:
    """In a step, its host loses its connection."""

    def cut() -> None:
        subprocess.run(["ip", "link", "set", interface, "down"], check=True)

    meets(step, cut)


def has_small_pieces() -> None:
    """Samples of an .npz are made 16 at a time, so that there is something to go on with."""
    from catgan.sampling import npz

    npz.CHUNK = 16


def has_a_quick_testbed() -> None:
    """The digits' studies train for a dozen steps."""
    from catgan.config_io import with_values
    from catgan.studies import catalogue

    few = {"training.steps": 12, "training.batch": 16, "eval.every": 6, "eval.samples": 60, "checkpoint.every": 2}
    few |= {"log.every": 2, "log.diagnose_every": 6, "log.diagnose_samples": 50, "log.preview_every": 12}
    bed = catalogue.TESTBEDS["digits"]
    catalogue.TESTBEDS["digits"] = replace(bed, config=with_values(bed.config, few), samples=60, minutes=0.1)


def knows_another_hub(url: str, cache: Path) -> None:
    """The Hugging Face Hub is at this address."""
    import huggingface_hub
    import huggingface_hub.hf_api
    from hub import TOKEN

    constants = huggingface_hub.constants
    constants.ENDPOINT, constants.HF_HUB_CACHE = url, str(cache)
    constants.HUGGINGFACE_CO_URL_TEMPLATE = url + "/{repo_id}/resolve/{revision}/{filename}"
    constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = False, True
    huggingface_hub.hf_api.api.endpoint = url
    os.environ["HF_TOKEN"] = TOKEN


def meets(step: int, event: Callable[[], None]) -> None:
    """Let something happen between the discriminator's and the generator's update of a step of this process, from 0."""
    from catgan.training.step import Step

    real, seen = Step.update, -1

    def update(self: Step, network: str, norms: dict[str, torch.Tensor]) -> None:
        nonlocal seen
        real(self, network, norms)
        seen += network == "discriminator"
        if network == "discriminator" and seen == step:
            event()

    Step.update = update  # type: ignore[method-assign]


def elsewhere(seconds: float, host: str) -> None:
    """On another host, whose clock is wrong and goes backwards."""
    real, began = time.time, time.time()
    time.time = lambda: 2 * began - real() + seconds
    platform.node = lambda: host
