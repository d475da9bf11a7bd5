"""What a piece of work takes: seconds on its device, or floating-point operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, Protocol

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

aten = torch.ops.aten


class Meter(Protocol):
    """Something that runs on while work is done."""

    def now(self) -> Any: ...

    def between(self, begin: Any, end: Any) -> float:
        """How far it ran from one `now` to a later one."""
        ...


class Clock:
    """Seconds; on CUDA by events, so that nothing waits for the device until they are read.

    cpu_time: only those in which the processor works for this process, on all its threads together.
    """

    def __init__(self, device: torch.device, cpu_time: bool = False) -> None:
        self.device, self.read = device, time.process_time if cpu_time else time.perf_counter

    def now(self) -> Any:
        if self.device.type != "cuda":
            return self.read()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def between(self, begin: Any, end: Any) -> float:
        if self.device.type != "cuda":
            return float(end - begin)
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


# -- arithmetic --------------------------------------------------------------------------------------------------------


def attention_flop(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    """Two matrix products."""
    return int(sdpa_flop_count(q, k, v))


def attention_backward_flop(
    grad: Sequence[int], q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any
) -> int:
    """Four matrix products. Fused kernels compute the scores once more, which no result needs: not counted."""
    return 2 * int(sdpa_flop_count(q, k, v))


# PyTorch's counter does not know the CPU's kernels, and counts what fused ones compute twice.
FORMULAS = {
    aten._scaled_dot_product_flash_attention_for_cpu: attention_flop,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flop,
    aten._scaled_dot_product_flash_attention_backward: attention_backward_flop,
    aten._scaled_dot_product_efficient_attention_backward: attention_backward_flop,
    aten._scaled_dot_product_cudnn_attention_backward: attention_backward_flop,
}


class Operations:
    """Floating-point operations in matrix products and attention, a multiplication and an addition as two."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter = counter

    def now(self) -> int:
        return int(self.counter.get_total_flops())

    def between(self, begin: int, end: int) -> float:
        return float(end - begin)


@contextmanager
def counting() -> Iterator[Operations]:
    """Count while the block runs, with nothing compiled: compiled code hides its arithmetic."""
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        yield Operations(counter)


# -- repeated measurements ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Something to measure: `run` does it once and tells what it took by a meter, by name."""

    run: Callable[[Meter], dict[str, float]]

    @staticmethod
    def of(name: str, function: Callable[[], Any]) -> Part:
        def run(meter: Meter) -> dict[str, float]:
            begin = meter.now()
            function()
            return {name: meter.between(begin, meter.now())}

        return Part(run)

    def repeated(self, meter: Meter, times: int) -> dict[str, float]:
        """The mean of so many runs in a row."""
        runs = [self.run(meter) for _ in range(times)]
        return {name: sum(r[name] for r in runs) / times for name in runs[0]}


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of one thing, in seconds."""

    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.runs)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.runs) == 1:
            return self.runs[0], self.runs[0]
        low, _, high = quantiles(self.runs, n=4, method="inclusive")
        return low, high

    def description(self) -> dict[str, Any]:
        low, high = self.quartiles
        return {"median": self.median, "low": low, "high": high, "runs": list(self.runs)}
