"""Measuring in turns: what makes a busy machine slower for a while makes everything slower, the ceiling included."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from catgan.bench.ceiling import Ceiling
from catgan.bench.meters import Clock, Part, Timing, counting
from catgan.system.progress import clock as minutes
from catgan.training.timing import UNRECORDED

SHORTEST = 0.2  # seconds for which one measurement repeats what is shorter


@dataclass(frozen=True)
class Request:
    """What to measure, and how."""

    only: tuple[str, ...]
    """Some of step, generator, sampling, loader, memory."""
    sizes: tuple[int, ...]
    """Batch sizes of sampling."""
    repeats: int
    """Measurements of each part."""
    say: Callable[[str], None]
    """Takes lines about where the measurement is."""
    scaling: bool = False
    """Compare little work with much."""
    cold_start: bool = False
    """Time the first step of compiled training in new processes."""
    cpu_time: bool = False
    """Measure by the processor's time, of one thread, in place of the clock's."""


def rounds(
    parts: dict[str, Part], ceiling: Ceiling, clock: Clock, request: Request, compiled: bool
) -> tuple[dict[str, Timing], dict[str, float]]:
    """Measure all parts in turns, the ceiling before each. Returns times and floating-point operations, by name."""
    work: dict[str, float] = {}
    loops: dict[str, int] = {}
    expected = 0.0
    for name, part in parts.items():
        request.say(f"warm-up: {name}")
        began = time.perf_counter()
        with counting() as operations:
            work |= part.run(operations)
        took = time.perf_counter() - began
        for _ in range(UNRECORDED if clock.device.type == "cuda" else int(compiled)):
            part.run(clock)  # compiled, and recorded
        if compiled or took < 10 * SHORTEST:
            began = time.perf_counter()
            part.run(clock)
            took = time.perf_counter() - began
        loops[name] = max(1, round(SHORTEST / took))
        expected += loops[name] * took
    times: dict[str, list[float]] = {}
    for count in range(request.repeats):
        request.say(
            f"round {count + 1} of {request.repeats}, about {minutes(expected * (request.repeats - count))} left"
        )
        for name, part in parts.items():
            ceiling.measure()
            for measure, seconds in part.repeated(clock, loops[name]).items():
                times.setdefault(measure, []).append(seconds)
    return {name: Timing(tuple(values)) for name, values in times.items()}, work
