"""Who computes the generator's transformer when sampling.

eager     PyTorch, operation by operation
compile   PyTorch with the transformer block compiled, which takes a while before the first sample (CPU: a C++ compiler);
          on CUDA also recorded and replayed, see `Replayed`
openvino  OpenVINO, on CPUs: the fastest there, see docs/performance.md
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from catgan.errors import UserError, require
from catgan.generator import Generator
from catgan.system.devices import check_compiler
from catgan.system.packages import need

Backend = Literal["eager", "compile", "openvino"]
BACKENDS: tuple[str, ...] = get_args(Backend)
Synthesize = Callable[[Tensor, bool], Tensor]  # w (n, d) to h_K, or with True to all stages, like Generator.synthesize


def check_backend(backend: str, device: torch.device) -> None:
    """Raise UserError for an unknown backend, or one that this device or machine has not."""
    require(backend in BACKENDS, "backend", backend, f"one of {', '.join(BACKENDS)}")
    if backend == "compile":
        check_compiler(device, "backend is compile", "choose another backend")
    if backend == "openvino":
        if device.type != "cpu":
            raise UserError(
                f"backend is openvino, which computes on the CPU, but device is {device}: use compile or eager"
            )
        need("openvino", "backend openvino", "openvino")


def synthesizer(generator: Generator, backend: Backend, precision: str) -> Synthesize:
    """How this backend computes `generator.synthesize`, without gradients, in float32 or bfloat16."""
    if backend == "openvino":
        return OpenVINO(generator, precision)
    if backend == "compile":
        from catgan.nn.compiling import compile_blocks

        # A twin with the same weights: the pipeline's generator stays as it is.
        generator = copy.deepcopy(generator, {id(t): t for t in (*generator.parameters(), *generator.buffers())})
        compile_blocks(generator, dynamic=None)

    def synthesize(w: Tensor, all_stages: bool) -> Tensor:
        with torch.autocast(w.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            return generator.synthesize(w, all_stages)

    on_gpu = backend == "compile" and next(generator.parameters()).device.type == "cuda"
    return Replayed(synthesize) if on_gpu else synthesize


UNRECORDED = 2  # batches of a size, in which the compiler makes its kernels
RECORDINGS = 8  # sizes of batches, at the most


class Replayed:
    """Synthesis by CUDA graphs: recorded when batches of a size keep coming, and replayed from then on.

    A GPU would wait for the CPU to start kernel after kernel: for one sample ten times as long as they take.
    """

    def __init__(self, synthesize: Synthesize) -> None:
        self.synthesize = synthesize
        self.seen: Counter[tuple[int, bool]] = Counter()
        self.made: dict[tuple[int, bool], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self.pool: Any = None  # of memory that all recordings share: one is replayed at a time, and its result copied

    def __call__(self, w: Tensor, all_stages: bool) -> Tensor:
        kind = len(w), all_stages
        with torch.cuda.device(w.device):
            if kind not in self.made:
                if self.seen[kind] < UNRECORDED or len(self.made) == RECORDINGS:
                    self.seen[kind] += 1
                    return self.synthesize(w, all_stages)
                graph, given = torch.cuda.CUDAGraph(), w.clone()
                with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                    self.made[kind] = graph, given, self.synthesize(given, all_stages)
                self.pool = graph.pool()
            graph, given, result = self.made[kind]
            given.copy_(w)
            graph.replay()
            return result.clone()


class Synthesis(nn.Module):
    """`synthesize` as the forward pass of a module, for export."""

    def __init__(self, generator: Generator, all_stages: bool) -> None:
        super().__init__()
        self.generator, self.all_stages = generator, all_stages

    def forward(self, w: Tensor) -> Tensor:
        return self.generator.synthesize(w, self.all_stages)


class OpenVINO:
    """The generator in OpenVINO, for batches of any size. Made on the first sample, from the weights of that moment."""

    def __init__(self, generator: Generator, precision: str) -> None:
        self.generator, self.precision = generator, precision
        self.made: dict[bool, Any] = {}

    def __call__(self, w: Tensor, all_stages: bool) -> Tensor:
        if all_stages not in self.made:
            model = openvino_model(self.generator, all_stages)
            self.made[all_stages] = compiled_by_openvino(model, self.precision)
        return torch.from_numpy(self.made[all_stages](w.float().numpy())[0].copy())


def openvino_model(generator: Generator, all_stages: bool) -> Any:
    """`synthesize` as an OpenVINO model that takes w (n, d) of any n."""
    import openvino

    example, sizes = torch.zeros(2, generator.width), {"w": {0: torch.export.Dim("batch", min=1)}}
    return openvino.convert_model(
        torch.export.export(Synthesis(generator, all_stages), (example,), dynamic_shapes=sizes)
    )


def compiled_by_openvino(model: Any, precision: str, **settings: Any) -> Any:
    """The model for this CPU and as many threads as PyTorch has; further settings by OpenVINO's names."""
    import openvino

    settings |= {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    return openvino.Core().compile_model(model, "CPU", settings)
