"""Where the time of a run goes."""

from __future__ import annotations

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Part = Literal["data", "communication", "checkpoint", "evaluation"]
PARTS: tuple[Part, ...] = ("data", "communication", "checkpoint", "evaluation")
Mark = float | torch.cuda.Event


class Stopwatch:
    """Seconds that went into each part of a run; whatever is in none of them is forward, backward and update."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[Part, float] = defaultdict(float)
        self.open: list[tuple[Part, torch.cuda.Event, torch.cuda.Event]] = []  # between marks in a GPU's queue
        self.began = time.perf_counter()
        self.cpu_began = time.process_time()
        self.cpu_aside = 0.0  # CPU seconds of evaluations since then

    @contextmanager
    def of(self, part: Part) -> Iterator[None]:
        began, cpu_began = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - began
            if part == "evaluation":
                self.cpu_aside += time.process_time() - cpu_began

    def cpu(self) -> float:
        """CPU seconds of this process since the last call, without evaluations."""
        now = time.process_time()
        spent = now - self.cpu_began - self.cpu_aside
        self.cpu_began, self.cpu_aside = now, 0.0
        return spent

    def mark(self) -> Mark:
        """This moment; on a GPU, when it has come to this place in its queue."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, part: Part, began: Mark, ended: Mark) -> None:
        if isinstance(began, float) and isinstance(ended, float):
            self.seconds[part] += ended - began
        elif isinstance(began, torch.cuda.Event) and isinstance(ended, torch.cuda.Event):
            self.open.append((part, began, ended))

    def read(self) -> tuple[float, dict[Part, float]]:
        """Seconds since the last reading, and those of each part. On a GPU, waits for it where marks are open."""
        for part, began, ended in self.open:
            ended.synchronize()
            self.seconds[part] += began.elapsed_time(ended) / 1000
        now = time.perf_counter()
        elapsed, seconds = now - self.began, {part: self.seconds[part] for part in PARTS}
        self.began = now
        self.seconds.clear()
        self.open.clear()
        return elapsed, seconds


UNRECORDED = 3  # first steps on a GPU: optimisers make their state, the compiler its kernels, the libraries their plans


class Pace:
    """Seconds per step, once a run is under way: the mean of its first steps after those that warm up, or are recorded.

    Measured on the run's own steps, so that no number of theirs depends on it.
    """

    STEPS, ENOUGH = 10, 20.0  # ENOUGH: seconds that make do with fewer steps

    def __init__(self, device: torch.device) -> None:
        self.device, self.steps, self.spent = device, 0, 0.0
        self.warm_up = UNRECORDED + 1 if device.type == "cuda" else 2
        self.known: float | None = None

    @contextmanager
    def of_step(self) -> Iterator[None]:
        if self.known is not None:
            yield
            return
        began = self.now()
        yield
        self.steps += 1
        timed = self.steps - self.warm_up
        if timed > 0:
            self.spent += self.now() - began
            if timed == self.STEPS or self.spent > self.ENOUGH:
                self.known = self.spent / timed

    def now(self) -> float:
        """Seconds by the clock, when all that a GPU has to do is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def peak_memory(device: torch.device) -> int:
    """Bytes at the most so far: of tensors on a GPU, of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
