"""Memory at its fullest, measured: every allocation while something runs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


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
