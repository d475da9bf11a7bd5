"""What processes of `test_saving.py` do: python saving_processes.py FOLDER COMMAND:PROCESSES ...

They are forked from one, since to import torch takes each of them seconds.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from catgan.checkpoint import reading as checkpoint
from catgan.checkpoint import saving
from catgan.checkpoint.manifest import Header
from catgan.checkpoint.saving import Saver
from catgan.config import Config
from catgan.errors import UserError
from catgan.system.processes import Processes

Networks = tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]


class Toy(nn.Module):
    """Rows that do not divide evenly, a parameter of a single row, and buffers of other types."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.one = nn.Linear(5, 7), nn.Linear(3, 1)
        self.register_buffer("sums", torch.randn(3, 2, dtype=torch.float64))
        self.register_buffer("updates", torch.randint(100, (3,)))
        self.register_buffer("count", torch.randint(100, ()))


def build(seed: int, sharded: bool = False) -> Networks:
    """Networks and their optimisers after a step; their numbers depend on the seed alone."""
    torch.manual_seed(seed)
    networks = {name: Toy() for name in ("generator", "discriminator", "ema")}
    if sharded:
        mesh = init_device_mesh("cpu", (Processes.from_environment().world,))
        for network in networks.values():
            fully_shard(network, mesh=mesh)
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for name in ("generator", "discriminator"):
        optimizers[name] = torch.optim.AdamW(networks[name].parameters(), lr=0.1, fused=True)
        for parameter in networks[name].parameters():
            parameter.grad = parameter.detach() * 0.5
        optimizers[name].step()
    return dict(networks), optimizers


def header(step: int = 3) -> Header:
    return Header(step, Config(recipe="digits"), ("a",), ("term",), 24)


def tensors(networks: Networks) -> dict[str, Tensor]:
    return checkpoint.state_tensors(*networks)


def save(out: Path, saver: Saver) -> None:
    """One checkpoint of whole and one of sharded networks, which change before they are written."""
    for kind in ("ddp", "fsdp2"):
        mine = tensors(build(0, kind == "fsdp2"))
        saver.save(out / kind, mine, header())
        for tensor in mine.values():
            checkpoint.local_rows(tensor)[0].detach().zero_()
        saver.wait()


def convert(out: Path, saver: Saver) -> None:
    """Read each of those into other networks, whole and sharded, and save these."""
    for source in ("ddp", "fsdp2"):
        for kind in ("ddp", "fsdp2"):
            networks, optimizers = build(1, kind == "fsdp2")
            checkpoint.restore(checkpoint.Reader(out / source), networks, optimizers)
            saver.save(out / f"{source}-{kind}", tensors((networks, optimizers)), header())
            saver.wait()


def fail(out: Path, saver: Saver) -> None:
    """A full disk, a bug and a death, each in the second process alone; what each says is written to FOLDER."""
    rank, real, mine = saver.processes.rank, saving.save_tensors, tensors(build(0))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def bug() -> None:
        raise ValueError("a bug")

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    saver.save(out / "good", mine, header())
    saver.wait()
    for name, broken, done in (("full", full, None), ("bug", real, bug), ("dead", die, None)):
        saving.save_tensors = broken if rank == 1 else real
        saver.save(out / name, mine, header(), done if rank == 1 else None)
        try:
            saver.wait()
        except (UserError, RuntimeError) as error:
            (out / f"{name}-{rank}.txt").write_text(str(error))


def steps(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in checkpoint.listed(folder)]


def kill(out: Path, saver: Saver) -> None:
    """Kill a process that saves all the time, at random moments. What it left must be whole."""
    chance, end = random.Random(0), time.monotonic() + 120
    folder, seen = out / "checkpoints", 0
    mine = {f"{group}.{i}": torch.randn(50_000) for group in ("generator", "ema", "optimizer") for i in range(3)}
    saver.save(out / "warm", mine, header())  # so that the children need no time to start
    saver.wait()
    for _ in range(12):
        child = os.fork()
        if child == 0:
            for step in range(seen + 1, 10_000):
                saver.save(folder / checkpoint.name(step), mine, header(step), lambda: checkpoint.prune(folder, 2, ()))
        while max([0, *steps(folder)]) <= seen and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for path in checkpoint.listed(folder):
            checkpoint.verify(path)
            assert torch.equal(checkpoint.Reader(path)["generator.1"][...], mine["generator.1"])
        reached = steps(folder)
        assert reached[-1] > seen, "nothing was saved"
        assert not seen or len(reached) >= 2, "an older checkpoint is gone"
        seen = reached[-1]
        checkpoint.set_aside(folder, seen)
        assert steps(folder) == reached
        assert len(list(folder.iterdir())) == len(reached), "something is left of the crash"


def fork(world: int, command: str, out: Path) -> None:
    """Let so many processes that know each other run a command; prints how they ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            code = 1
            try:
                COMMANDS[command](out, Saver(Processes.from_environment()))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(command, *codes, flush=True)


COMMANDS = {"save": save, "convert": convert, "fail": fail, "kill": kill}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for job in sys.argv[2:]:
        name, _, count = job.partition(":")
        fork(int(count), name, Path(sys.argv[1]))
