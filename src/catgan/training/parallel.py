"""How the processes of a run share each batch and keep their networks equal (PyTorch's DDP and FSDP2).

A loss is a sum over this process's samples divided by the whole batch's count, so gradients of all processes are added
up, not averaged: by a hook of DDP's, or by FSDP2's reduction forced to a sum (gloo knows no average). Each of N
processes takes the N-th part of every batch, in order, so that together they compute what one would.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from catgan.errors import UserError
from catgan.processes import Processes
from catgan.training.timing import Stopwatch

ROLL_CALL = timedelta(seconds=20)  # how long a process may take to answer when something went wrong
# What gloo and NCCL say when another process is gone or does not come.
BROKEN = re.compile(r"gloo|nccl|connection|timed? ?out|peer|process group|store", re.IGNORECASE)


class StalledError(UserError):
    """A process of the run is gone, or does not come to where the others wait for it."""

    exit_code = 1


class Parallel:
    """This process's share of the work, and where it meets the others. With one process all of it is nothing."""

    def __init__(
        self,
        processes: Processes,
        device: torch.device,
        sharded: bool = False,
        timeout: float = 600,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        """sharded: FSDP2 in place of DDP. timeout: seconds that one process may keep the others waiting in a step."""
        self.processes, self.device, self.timeout = processes, device, timedelta(seconds=timeout)
        self.sharded = sharded and processes.several
        self.stopwatch = stopwatch or Stopwatch(device)
        self.ready: Any = None  # when the last gradients of a backward pass were there
        if processes.several:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            # The meeting on the CPU after each step is to notice a stall before NCCL's own watchdog does.
            processes.meet(2 * self.timeout if device.type == "cuda" else self.timeout, device)
            processes.group("roll call", ROLL_CALL)
            processes.group("control", self.timeout)

    def share(self, batch: int) -> tuple[int, int]:
        """Where this process's samples of a batch begin and end."""
        each = batch // self.processes.world
        return self.processes.rank * each, (self.processes.rank + 1) * each

    # -- networks --------------------------------------------------------------------------------------------------

    def shard(self, network: nn.Module) -> None:
        """Under FSDP2: spread the parameters, of each block and of the rest, over the processes, in place."""
        if not self.sharded:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        mesh = init_device_mesh(self.device.type, (self.processes.world,))
        for module in (*cast(nn.ModuleList, network.blocks), network):
            fully_shard(module, mesh=mesh)
            assert isinstance(module, FSDPModule)
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)

    def trained(self, network: nn.Module) -> nn.Module:
        """What to call in place of a network so that its gradients are added up over the processes."""
        if not self.processes.several or self.sharded:
            return network
        from torch.nn.parallel import DistributedDataParallel

        ids = [self.device] if self.device.type == "cuda" else None
        with warnings.catch_warnings():  # the new name of broadcast_buffers is not known to older versions of PyTorch
            warnings.simplefilter("ignore", FutureWarning)
            wrapped = DistributedDataParallel(network, ids, broadcast_buffers=False, gradient_as_bucket_view=True)
        wrapped.register_comm_hook(None, lambda _, bucket: self.add_up(bucket))
        return wrapped

    def add_up(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """DDP's hook: the sum of a bucket (torch.distributed.GradBucket) of gradients over the processes."""
        self.ready = self.stopwatch.mark()
        future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
        return cast("torch.futures.Future[Tensor]", future.then(lambda f: f.value()[0]))

    def exchange(self, network: nn.Module, now: bool) -> None:
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

    def largest(self, value: float) -> float:
        """The largest of a number over the processes. Waits for all of them, on the CPU."""
        if not self.processes.several:
            return value
        found = torch.tensor([value], dtype=torch.float64)
        with self.stopwatch.of("communication"):
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.processes.group("control"))
        return float(found)

    # -- when somebody does not come -------------------------------------------------------------------------------

    @contextmanager
    def watched(self, where: str) -> Iterator[None]:
        """Raise StalledError, which names the processes that are missing, where an exchange with them fails."""
        try:
            yield
        except RuntimeError as error:
            if not self.processes.several or not BROKEN.search(str(error)):
                raise
            raise StalledError(f"{where}: {self.missing()}; the others stop here") from error

    def missing(self) -> str:
        """Call the roll: who does not answer."""
        try:
            dist.monitored_barrier(self.processes.group("roll call"), ROLL_CALL, wait_all_ranks=True)
        except RuntimeError as error:
            # Rank 0 hears from everybody and lists who failed; the others hear from rank 0 alone.
            found = re.search(r"Ranks? +([\d, ]+)failed to pass", str(error))
            ranks = found.group(1).strip(" ,") if found else "0" if not self.processes.first else "?"
            return f"rank {ranks} did not come within {self.timeout.total_seconds():g} s and does not answer"
        return f"all ranks answer, but one kept the others waiting for over {self.timeout.total_seconds():g} s"


def local(tensor: Tensor) -> Tensor:
    """This process's part of a parameter: all of it, but under FSDP2."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A parameter with the parts of all processes, who must all call this."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
