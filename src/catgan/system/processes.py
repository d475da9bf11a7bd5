"""One process or several, as torchrun started them. No torch on import: the command line must start fast."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from catgan.errors import UserError, said_once

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

PATIENCE = timedelta(days=1)  # for work that one process does while the others wait
groups: dict[str, ProcessGroup] = {}  # by purpose; made once, by all processes at the same place
stores: dict[str, Store] = {}  # what all processes can read and write, without waiting for each other


class OtherProcessError(UserError):
    """The first process failed, and has said why."""

    raised_by_all = True


@dataclass(frozen=True)
class Processes:
    """This process's number among those that share a task."""

    rank: int = 0
    world: int = 1

    @classmethod
    def from_environment(cls) -> Processes:
        """What torchrun says in RANK and WORLD_SIZE; one process without it."""
        return cls(whole_number("RANK", 0), whole_number("WORLD_SIZE", 1))

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.world > 1

    def device(self, name: str) -> str:
        """`auto` and `cuda` as this process's own GPU, where there are any; else the name as it is.

        Raises UserError for one GPU that all processes of a machine would share.
        """
        import torch

        if not self.several:
            return name
        if name.startswith("cuda:") and whole_number("LOCAL_WORLD_SIZE", 1) > 1:
            with said_once():
                raise UserError(f"device is {name}, one GPU for all processes: must be cuda or auto, a GPU for each")
        if name in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{whole_number('LOCAL_RANK', 0) % torch.cuda.device_count()}"
        return name

    def meet(self, timeout: timedelta = PATIENCE, device: torch.device | None = None) -> None:
        """Connect the processes, if they are not: with gloo on the CPU, and NCCL for tensors on a GPU.

        timeout: of a collective operation in the default group.
        """
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        if self.several and not dist.is_initialized():
            cuda = device is not None and device.type == "cuda"
            backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
            found, _, _ = next(rendezvous("env://", timeout=timeout))
            found.set_timeout(timeout)
            # The store of torchrun outlives processes that it starts again, and would tell these where the dead ones were.
            shared = PrefixStore(f"attempt {whole_number('TORCHELASTIC_RESTART_COUNT', 0)}", found)
            own = PrefixStore("default", shared)
            dist.init_process_group(backend, store=own, rank=self.rank, world_size=self.world, timeout=timeout)
            stores["roll call"] = PrefixStore("roll call", shared)

    def group(self, purpose: str, timeout: timedelta = PATIENCE) -> ProcessGroup:
        """A gloo group of all processes for one purpose, so that its operations cannot mix with those of others."""
        import torch.distributed as dist

        self.meet()
        if purpose not in groups:
            groups[purpose] = cast("ProcessGroup", dist.new_group(backend="gloo", timeout=timeout))
        return groups[purpose]

    def wait(self) -> None:
        """Until all processes are here. Work between two meetings may take up to a day."""
        if self.several:
            import torch.distributed as dist

            dist.barrier(group=self.group("waiting"))

    def from_first(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first process, in all of them. Raises OtherProcessError where it failed there."""
        if not self.several:
            return work()
        import torch.distributed as dist

        answer: list[Any] = [False, None]
        try:
            if self.first:
                answer = [True, work()]
        finally:
            dist.broadcast_object_list(answer, src=0, group=self.group("waiting"))
        if not answer[0]:
            raise OtherProcessError("the first process could not go on")
        result: T = answer[1]
        return result

    def leave(self) -> None:
        """Disconnect, after all work is done."""
        import torch.distributed as dist

        if self.several and dist.is_initialized():
            groups.clear()
            stores.clear()
            dist.destroy_process_group()


def whole_number(name: str, least: int) -> int:
    """An environment variable as a number; `least` if it is not set."""
    text = os.environ.get(name, str(least))
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"environment variable {name} is {text}: must be a number of at least {least}")
    return int(text)
