"""A training step as one CUDA graph: hundreds or thousands of kernels started at once.

A small network's kernels end before a CPU has started the next. Recorded once and replayed, they follow each other
without it. What differs between steps lies in tensors that stay where they are and are filled before each replay: the
samples, the number of the step, from which it draws, and the numbers of the schedules. The kernels, and so the losses,
are those of a step that is not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from catgan.errors import UserError
from catgan.system.devices import memory_error, moved
from catgan.training.timing import UNRECORDED

Metrics = dict[str, Tensor]  # scalars, and vectors over scales, of a step
Iterate = Callable[[Tensor, Tensor, Tensor, Mapping[str, Tensor]], Metrics]


class StepGraph:
    """Runs iterations of one micro-batch for each network, from the fourth on by replaying a recording of one."""

    def __init__(self, iterate: Iterate, optimizers: Iterable[torch.optim.Optimizer], device: torch.device) -> None:
        """iterate: given the number of the step, real samples, their classes, and the numbers of the schedules. All are
        tensors, the numbers ()."""
        self.iterate, self.device = iterate, device
        self.inputs: list[Tensor] = []  # what the recording reads: step, samples, classes, schedules
        self.names: tuple[str, ...] = ()  # of the schedules' numbers
        self.done = 0
        self.stream: torch.cuda.Stream | None = None  # of the steps before the recording
        self.graph: torch.cuda.CUDAGraph | None = None
        self.metrics: Metrics = {}  # what the recording writes
        for optimizer in optimizers:
            optimizer.param_groups[0]["capturable"] = True

    def run(self, step: int, x: Tensor, y: Tensor, schedule: Mapping[str, float]) -> Metrics:
        """An iteration. Batches of another size are recorded anew."""
        self.fill(step, x, y, schedule)
        self.done += 1
        if self.done <= UNRECORDED:
            return self.unrecorded()
        if self.graph is None:
            self.graph, self.metrics = self.recorded()
        self.graph.replay()
        return {name: value.clone() for name, value in self.metrics.items()}

    def fill(self, step: int, x: Tensor, y: Tensor, schedule: Mapping[str, float]) -> None:
        """Put the step's tensors and numbers where its kernels read them."""
        numbers = torch.tensor(step), torch.tensor(list(schedule.values()), dtype=torch.float32)
        number, scheduled = (moved(t, self.device) for t in numbers)
        given = [number, x, y, scheduled]
        if [t.shape for t in given] == [t.shape for t in self.inputs]:
            for there, t in zip(self.inputs, given, strict=True):
                there.copy_(t)
            return
        self.inputs, self.names = [t.clone() for t in given], tuple(schedule)
        self.done, self.graph = 0, None

    def unrecorded(self) -> Metrics:
        """An iteration as it comes, on a stream of its own, as the recording will be."""
        self.stream = stream = self.stream or torch.cuda.Stream()  # one, as the libraries have a workspace for each
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            metrics = self.once()
        current.wait_stream(stream)
        return metrics

    def recorded(self) -> tuple[torch.cuda.CUDAGraph, Metrics]:
        """The graph of an iteration, and where it writes its metrics. Changes no weight.

        Other threads, which read ahead, may go on with what a recording forbids in its own thread. Raises UserError for
        an iteration that waits for the GPU.
        """
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                return graph, self.once()
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # a recording that cannot be ended does not go back by itself
            first = error.__context__ or error  # the end of the recording complains of what came before it
            if any(memory_error(e) or "out of memory" in str(e) for e in (first, error)):
                raise first from None
            reason = str(first).partition("\n")[0]
            raise UserError(f"a step cannot be recorded: set training.cuda_graph to false ({reason})") from error

    def release(self) -> None:
        """Give back the memory of a whole step, which a recording keeps. It is recorded anew."""
        self.graph, self.metrics, self.done = None, {}, 0

    def once(self) -> Metrics:
        """What is recorded."""
        step, x, y, scheduled = self.inputs
        return self.iterate(step, x, y, dict(zip(self.names, scheduled.unbind(), strict=True)))
