"""Memory at its fullest, measured: every allocation while something runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from catgan.accounting.memory import Layout, Networks, Share, peak
from catgan.config import Config
from catgan.errors import UserError

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would write about its own work, and missing GPUs


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """The most bytes that are allocated at once while `run` runs, above what was allocated before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        run()
    events = watched.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(accumulate(size for _, size in changes), default=0)


def check_memory(config: Config, device: torch.device) -> None:
    """Raise UserError for a batch whose training step cannot fit, before the system has to find out."""
    t = config.training
    share = Share(1, t.batch, min(t.micro_batch or t.batch, t.batch))
    needed = sum(peak(Networks(config), share, Layout(sharded=False, checkpointing=False))["bytes"].values())
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    else:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise UserError(
            f"training.batch is {t.batch}: a step needs about {needed / 2**30:.0f} GiB, and {device} has "
            f"{there / 2**30:.0f}; use a smaller --batch, such as 4"
        )


def state_bytes(networks: list[nn.Module], optimizers: list[torch.optim.Optimizer]) -> int:
    """Bytes of weights, buffers and the optimisers' moments."""
    tensors: list[Tensor] = [t for n in networks for t in (*n.parameters(), *n.buffers())]
    for optimizer in optimizers:
        tensors += [t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def python_share(run: Callable[[], Any]) -> float:
    """Share of the time in which no operator of PyTorch runs, on the CPU: Python's, and some of the profiler's own."""
    with profile(activities=[ProfilerActivity.CPU]) as watched, torch.profiler.record_function("all of it"):
        run()
    whole = next(e for e in watched.events() or () if e.name == "all of it")
    inside = sum(e.time_range.elapsed_us() for e in whole.cpu_children)
    return 1 - inside / whole.time_range.elapsed_us()
