"""Where a GPU's time goes: `python benchmarks/gpu_profile.py [--device cpu] [PART ...]`.

ceilings    what the card does at the most: matrix products, copies
attention   the discriminator's attention: a call per scale, one of variable lengths, plain products
penalties   the penalties as each `objective.penalty_precision` sees them, on the same weights
kernels     time of a training step by kind of kernel, and how long the CPU takes to start them
replay      training steps and samples, and the same as CUDA graphs
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import DeviceType, ProfilerActivity, profile

from catgan.bench.parts import MeasuredStep, inputs, measured
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.networks import build_networks
from catgan.recipes import recipe
from catgan.sampling.backends import Backend, synthesizer
from catgan.system.devices import tensor_float32
from catgan.training.timing import UNRECORDED
from gpu import TINY

STEPS = {"fashion-mnist": 32, "cat-b2": 64, "cat-h2": 32}  # recipes, and samples of a step
SPANS, HEADS, HEAD_SIZE = (5, 17, 65, 257), 12, 64  # the discriminator's attention of cat-*
KINDS = {  # by a part of the kernel's name; the first that fits
    "attention": ("flash", "fmha", "attention"),
    "products": ("nvjet", "gemm", "cutlass", "splitk"),
    "compiled": ("triton",),
    "copies": ("memcpy", "memset"),
    "optimiser": ("multi_tensor", "adamw"),
}


class Profile:
    """Measures on one device, and prints what it finds."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.small = device == "cpu"

    def config(self, name: str, **changes: Any) -> Config:
        """A recipe without its encoder; on a CPU tiny."""
        config = from_dict(changes, measured(recipe(name)))
        training = {"device": self.device.type, "batch": 2 if self.small else STEPS[name]}
        return from_dict((TINY if self.small else {}) | {"training": training}, config).validate()

    def seconds(self, function: Callable[[], Any], times: int = 20) -> float:
        times = 1 if self.small else times
        for _ in range(1 if self.small else UNRECORDED + 2):  # compiled, and recorded
            function()
        self.wait()
        began = time.perf_counter()
        for _ in range(times):
            function()
        self.wait()
        return (time.perf_counter() - began) / times

    def wait(self) -> None:
        if not self.small:
            torch.cuda.synchronize()

    # -- parts -----------------------------------------------------------------------------------------------------

    def ceilings(self) -> None:
        size = 64 if self.small else 8192
        for dtype, tf32 in ((torch.bfloat16, False), (torch.float32, True), (torch.float32, False)):
            a, b = (torch.randn(size, size, device=self.device, dtype=dtype) for _ in range(2))
            with tensor_float32(tf32):
                took = self.seconds(lambda a=a, b=b: a @ b, 10)
            print(f"product of {size}, {dtype}, TF32 {tf32}: {2e-12 * size**3 / took:.0f} TFLOP/s")
        x = torch.randn(2 ** (10 if self.small else 28), device=self.device)
        y = torch.empty_like(x)
        print(f"copy: {2e-12 * x.nbytes / self.seconds(lambda: y.copy_(x)):.2f} TB/s, read and written")

    def attention(self) -> None:
        batch, tokens = 2 if self.small else 64, sum(SPANS)

        def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return (q * HEAD_SIZE**-0.5 @ k.transpose(-1, -2)).softmax(-1) @ v

        def spanned(qkv: Tensor, attend: Callable[..., Tensor]) -> Tensor:
            parts = zip(*(t.transpose(1, 2).split(SPANS, dim=2) for t in qkv.unbind(2)), strict=True)
            return torch.cat([attend(*p).transpose(1, 2) for p in parts], dim=1)

        ends = torch.tensor(SPANS * batch).cumsum(0).tolist()
        ends = torch.tensor([0, *ends], dtype=torch.int32, device=self.device)

        def varying(qkv: Tensor) -> Tensor:
            from torch.nn.attention.varlen import varlen_attn

            q, k, v = (t.reshape(batch * tokens, HEADS, HEAD_SIZE) for t in qkv.unbind(2))
            return varlen_attn(q, k, v, ends, ends, max(SPANS), max(SPANS))

        ways = {
            "a call per scale": lambda t: spanned(t, F.scaled_dot_product_attention),
            "variable lengths": varying,
            "plain products": lambda t: spanned(t, plain),
        }
        for dtype in (torch.bfloat16, torch.float32):
            qkv = torch.randn(batch, tokens, 3, HEADS, HEAD_SIZE, device=self.device, dtype=dtype, requires_grad=True)
            for name, way in ways.items():
                try:
                    with tensor_float32(True):
                        took = self.seconds(lambda way=way, t=qkv: torch.autograd.grad(way(t).square().sum(), t))
                    print(f"attention, {dtype}, {name}: {1e6 * took:.0f} us forward and backward")
                except (RuntimeError, ImportError) as error:
                    print(f"attention, {dtype}, {name}: {str(error).splitlines()[0][:100]}")

    def penalties(self) -> None:
        state: list[dict[str, Tensor]] = []
        for precision in ("float32", "tf32", "same"):
            training = {"precision": "bfloat16", "compile": False, "cuda_graph": False}
            config = self.config("cat-b2", objective={"penalty_precision": precision}, training=training)
            step = MeasuredStep(config, self.device)
            x, y = inputs(config, self.device)
            if not state:
                for k in range(25):
                    step.run(k, x, y)
                state = [
                    {n: t.clone() for n, t in m.state_dict().items()} for m in (step.generator, step.discriminator)
                ]
            for network, tensors in zip((step.generator, step.discriminator), state, strict=True):
                network.load_state_dict(tensors)
            found = step.run(30, x, y)
            for name in ("discriminator/r1", "discriminator/r2"):
                print(f"{name}, {precision}: {', '.join(f'{v:.2g}' for v in found[name].tolist())}")

    def kernels(self) -> None:
        for name, compiled in (("fashion-mnist", False), ("cat-b2", False), ("cat-b2", True), ("cat-h2", True)):
            compiled &= not self.small
            config = self.config(name, training={"compile": compiled, "cuda_graph": False})
            step = MeasuredStep(config, self.device)
            x, y = inputs(config, self.device)
            took = self.seconds(lambda step=step, x=x, y=y: step.run(1, x, y), 10)
            self.wait()
            began = time.perf_counter()
            step.run(1, x, y)
            started = time.perf_counter() - began
            activities = [ProfilerActivity.CPU] + ([] if self.small else [ProfilerActivity.CUDA])
            with profile(activities=activities) as events:
                step.run(1, x, y)
                self.wait()
            times: dict[str, float] = defaultdict(float)
            count = 0
            for event in events.key_averages():
                if event.device_type == DeviceType.CUDA:
                    kind = next((k for k, w in KINDS.items() if any(p in event.key.lower() for p in w)), "others")
                    times[kind] += event.self_device_time_total / 1000
                    count += event.count
            kinds = ", ".join(f"{kind} {ms:.1f}" for kind, ms in sorted(times.items(), key=lambda item: -item[1]))
            print(
                f"{name}, batch {config.training.batch}, {'compiled' if compiled else 'eager'}: {1000 * took:.1f} ms, "
                f"started in {1000 * started:.1f}; {count} kernels, {sum(times.values()):.1f} ms: {kinds}"
            )
            torch._dynamo.reset()

    def replay(self) -> None:
        for name in STEPS:
            for graph in (False, True):
                config = self.config(name, training={"compile": not self.small, "cuda_graph": graph})
                step = MeasuredStep(config, self.device)
                x, y = inputs(config, self.device)
                took = self.seconds(lambda step=step, x=x, y=y: step.run(1, x, y))
                print(
                    f"{name}, batch {config.training.batch}, {'replayed' if graph else 'compiled'}: {1000 * took:.1f} ms"
                )
                torch._dynamo.reset()
        config = self.config("cat-b2")
        generator = build_networks(config)[0].to(self.device).eval().requires_grad_(False)
        ways: tuple[Backend, ...] = ("eager",) if self.small else ("eager", "compile")
        for backend in ways:
            synthesize = synthesizer(generator, backend, "bfloat16")
            for count in (1, 64, 256):
                w = torch.randn(count, generator.width, device=self.device)
                with torch.no_grad():
                    took = self.seconds(lambda w=w, make=synthesize: make(w, False))
                print(f"cat-b2, {count} samples, {backend}: {1000 * took:.2f} ms")


PARTS = ("ceilings", "attention", "penalties", "kernels", "replay")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: the same code on next to nothing"
    )
    o = parser.parse_args(argv)
    if unknown := set(o.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: must be some of {', '.join(PARTS)}")
    if o.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA GPU here; --device cpu tries the same code on a CPU", file=sys.stderr)
        return 2
    made = Profile(o.device)
    for part in o.parts or PARTS:
        getattr(made, part)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
