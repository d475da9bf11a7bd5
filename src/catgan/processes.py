"""One process or several, as torchrun started them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch

from catgan.errors import UserError


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

    def device(self, name: str) -> str:
        """`auto` as this process's own GPU, where there are any."""
        if name == "auto" and self.world > 1 and torch.cuda.is_available():
            return f"cuda:{whole_number('LOCAL_RANK', 0) % torch.cuda.device_count()}"
        return name

    def wait(self) -> None:
        """Until all processes are here. Work between two meetings may take up to a day."""
        if self.world > 1:
            import torch.distributed as dist

            if not dist.is_initialized():
                dist.init_process_group("gloo", timeout=timedelta(days=1))
            dist.barrier()


def whole_number(name: str, least: int) -> int:
    """An environment variable as a number; `least` if it is not set."""
    text = os.environ.get(name, str(least))
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"environment variable {name} is {text}: must be a number of at least {least}")
    return int(text)
