"""How the processes of a run share each batch and keep their networks equal (PyTorch's DDP and FSDP2).

A loss is a sum over this process's samples divided by the whole batch's count, so gradients of all processes are added
up, not averaged: by a hook of DDP's, or by FSDP2's reduction forced to a sum (gloo knows no average). Each of N
processes takes the N-th part of every batch, in order, so that together they compute what one would.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Thread
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from catgan.errors import UserError
from catgan.system.processes import Processes, stores
from catgan.training.timing import Stopwatch

ROLL_CALL = 20.0  # seconds, at the most, that a process may take to answer when something went wrong
# What gloo and NCCL say when another process is gone or does not come.
BROKEN = re.compile(r"gloo|nccl|connection|timed? ?out|\bpeer|process group|tcpstore", re.IGNORECASE)
TIMED_OUT = re.compile(r"timed? ?out", re.IGNORECASE)


class StalledError(UserError):
    """A process of the run is gone, or does not come to where the others wait for it."""

    exit_code = 1
    exit_immediately = True  # PyTorch's threads would wait for the missing process, or end this one with a core dump

    def __init__(self, message: str, raised_by_all: bool = False) -> None:
        """raised_by_all: another process that knows the same says it."""
        super().__init__(message)
        self.raised_by_all = raised_by_all


class Parallel:
    """This process's share of the work, and where it meets the others. With one process all of it is nothing."""

    def __init__(self, processes: Processes, device: torch.device, sharded: bool = False, timeout: float = 600) -> None:
        """sharded: FSDP2 in place of DDP. timeout: seconds that one process may keep the others waiting in a step."""
        self.processes, self.device, self.timeout = processes, device, timedelta(seconds=timeout)
        self.sharded = sharded and processes.several
        self.stopwatch = Stopwatch(device)
        self.patience = min(ROLL_CALL, timeout)
        self.hurried = False
        self.reorders = (
            processes.world > 2 and not self.sharded
        )  # DDP has seen no backward pass, and sums have an order
        self.ready: Any = None  # when the last gradients of a backward pass were there
        if device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)  # streams and recordings are of the current one
        if processes.several:
            with self.watched(lambda: "start"):
                # The meeting on the CPU after each step is to notice a stall before NCCL's own watchdog does.
                processes.meet(2 * self.timeout if device.type == "cuda" else self.timeout, device)
                processes.group("control", self.timeout)

    def share(self, batch: int) -> tuple[int, int]:
        """Where this process's samples of a batch begin and end."""
        each = batch // self.processes.world
        return self.processes.rank * each, (self.processes.rank + 1) * each

    # -- networks --------------------------------------------------------------------------------------------------

    def shard(self, network: nn.Module, gathered: torch.dtype | None = None) -> None:
        """Under FSDP2: spread the parameters, of each block and of the rest, over the processes, in place.

        gathered: the number format in which blocks are gathered and computed with; by default that of the parameters.
        Gradients are added up, accumulated and applied in that of the parameters.
        """
        if not self.sharded:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        mesh = init_device_mesh(self.device.type, (self.processes.world,))
        wide = next(network.parameters()).dtype
        of_blocks = MixedPrecisionPolicy(gathered, wide, cast_forward_inputs=False)  # autocast sees to the inputs
        blocks = list(cast(nn.ModuleList, network.blocks))
        for module, policy in (*((block, of_blocks) for block in blocks), (network, MixedPrecisionPolicy())):
            fully_shard(module, mesh=mesh, mp_policy=policy)
            assert isinstance(module, FSDPModule)
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)

    def wrap(self, network: nn.Module) -> nn.Module:
        """What to call in place of a network so that its gradients are added up over the processes."""
        if not self.processes.several or self.sharded:
            return network
        from torch.nn.parallel import DistributedDataParallel

        ids = [self.device] if self.device.type == "cuda" else None
        with warnings.catch_warnings():  # the new name of broadcast_buffers is not known to older versions of PyTorch
            warnings.simplefilter("ignore", FutureWarning)
            wrapped = DistributedDataParallel(network, ids, broadcast_buffers=False, gradient_as_bucket_view=True)
        wrapped.register_comm_hook(None, lambda _, bucket: self.sum_hook(bucket))
        return wrapped

    def sum_hook(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """DDP's hook: the sum of a bucket (torch.distributed.GradBucket) of gradients over the processes."""
        self.ready = self.stopwatch.mark()
        future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
        return cast("torch.futures.Future[Tensor]", future.then(lambda f: f.value()[0]))

    def set_gradient_sync(self, network: nn.Module, now: bool) -> None:
        """Whether the coming forward and backward pass adds gradients up, or leaves that to a later one."""
        if self.sharded:
            network.set_requires_gradient_sync(now)  # type: ignore[operator]
        elif self.processes.several:
            network.require_backward_grad_sync = now  # type: ignore[assignment]  # as DDP.no_sync does

    def backward(self, loss: Tensor) -> None:
        """The backward pass. What is left of the exchange after its last gradient counts as communication."""
        self.ready = None
        loss.backward()
        if self.ready is not None:
            self.stopwatch.add("communication", self.ready, self.stopwatch.mark())

    # -- numbers ---------------------------------------------------------------------------------------------------

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, in the order of the batch."""
        if not self.processes.several:
            return rows
        with self.stopwatch.of("communication"):
            parts = [torch.empty_like(rows) for _ in range(self.processes.world)]
            dist.all_gather(parts, rows.contiguous())
            return torch.cat(parts)

    def sum(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums of named scalars and vectors over the processes."""
        if not self.processes.several:
            return values
        with self.stopwatch.of("communication"):
            flat = torch.cat([v.reshape(-1) for v in values.values()])
            dist.all_reduce(flat)
            parts = flat.split([v.numel() for v in values.values()])
            return {name: part.view(v.shape) for (name, v), part in zip(values.items(), parts, strict=True)}

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Means of named numbers over the processes."""
        if not self.processes.several:
            return values
        summed = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(summed, group=self.processes.group("control"))
        return dict(zip(values, (summed / self.processes.world).tolist(), strict=True))

    def max(self, value: float) -> float:
        """The largest of a number over the processes. Waits for all of them, on the CPU."""
        if not self.processes.several:
            return value
        found = torch.tensor([value], dtype=torch.float64)
        with self.stopwatch.of("communication"):
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.processes.group("control"))
        return float(found)

    # -- when somebody does not come -------------------------------------------------------------------------------

    def hurry(self) -> None:
        """A signal has come: torchrun may end this process soon, so that a roll call must be short."""
        self.hurried = True

    @contextmanager
    def watched(self, where: Callable[[], str]) -> Iterator[None]:
        """Raise StalledError, which names the processes that are missing, where an exchange with them fails."""
        try:
            yield
        except RuntimeError as error:
            if not self.processes.several or not BROKEN.search(str(error)):
                raise
            raise self.stalled(where(), TIMED_OUT.search(str(error)) is not None) from error

    def stalled(self, where: str, timed_out: bool) -> StalledError:
        """Call the roll, and say who is missing. timed_out: whether that is what this process has seen."""
        if "roll call" not in stores:  # the caller has connected the processes
            return StalledError(f"{where}: another process is gone, or does not come")
        arrived: dict[int, tuple[int, bool]] = {}
        # In a thread, because the store answers from another process, which may be the one that hangs.
        thread = Thread(target=self.call_the_roll, args=(timed_out, arrived), daemon=True)
        thread.start()
        thread.join(self.patience + 2)
        ranks, waited = range(self.processes.world), f"{self.timeout.total_seconds():g} s"
        missing = ", ".join(str(rank) for rank in ranks if rank not in arrived)
        if not arrived:
            return StalledError(f"{where}: rank 0 is gone, or has given up to wait for this process")
        if missing:
            late = timed_out or any(late for _, late in arrived.values())
            how = f"did not come within {waited}" if late else "is gone (the connection to it broke)"
            said = f"rank {missing} {how}; the others stop here"
        elif any(late for _, late in arrived.values()):
            last = max(arrived, key=lambda rank: arrived[rank])
            said = f"rank {last} kept the others waiting for over {waited}: raise training.timeout if that is no fault"
        else:
            said = "the connection between the processes broke, though all of them answer"
        return StalledError(f"{where}: {said}", raised_by_all=self.processes.rank != min(arrived))

    def call_the_roll(self, timed_out: bool, arrived: dict[int, tuple[int, bool]]) -> None:
        """By rank, when each process arrived (1, 2, ...) and whether it was tired of waiting."""
        store, end = stores["roll call"], time.monotonic() + self.patience
        with suppress(RuntimeError):  # the process that keeps the store is gone
            store.set(str(self.processes.rank), f"{store.add('arrived', 1)} {int(timed_out)}")
            while len(arrived) < self.processes.world and time.monotonic() < end:
                for rank in range(self.processes.world):
                    if rank not in arrived and store.check([str(rank)]):
                        number, late = store.get(str(rank)).split()
                        arrived[rank] = int(number), late == b"1"
                if self.hurried:
                    self.hurried, end = False, min(end, time.monotonic() + 2)
                time.sleep(0.05)


def local_tensor(tensor: Tensor) -> Tensor:
    """This process's part of a parameter: all of it, but under FSDP2."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """A parameter with the parts of all processes, who must all call this."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
