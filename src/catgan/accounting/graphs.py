"""What a network's forward pass keeps for its backward pass on a GPU: measured on tensors that have no memory.

The networks run, as they are, on PyTorch's fake tensors. These follow the rules of the CPU, so the three that differ on
CUDA are put in their place: attention is one fused kernel, RMSNorm another in float32, and `addcmul` widens.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from catgan.config import Config
from catgan.discriminator import Discriminator
from catgan.generator import Generator
from catgan.networks import build_discriminator, build_generator
from catgan.nn.layers import at_least_float32
from catgan.objective.supervision import penalised_samples


@dataclass(frozen=True)
class Graph:
    """Bytes of a pass through one network."""

    kept: float  # per sample, from the forward to the backward pass
    working: float  # per sample, beside those at the fullest moment of the backward pass
    copies: float  # of the copies of weights that autocast makes, whatever the samples


@cache
def generator_graph(config: Config, checkpointing: bool = False) -> Graph:
    """Graph of the generator, with all stages as outputs. checkpointing: blocks keep their inputs alone and run again."""
    stages, batch = len(config.sample.scales), config.training.batch
    few = replace(config, generator=replace(config.generator, depth=max(stages, 2)))
    with FakeTensorMode():
        network = build_generator(few)
        network.recompute = checkpointing
        z, y = torch.empty(batch, network.z_dim), torch.zeros(batch, dtype=torch.int64)
        return measured(config, network, config.generator.depth, [z, y], lambda: network(z, y, all_stages=True))


@cache
def discriminator_graph(config: Config, checkpointing: bool = False, frozen: bool = False) -> Graph:
    """Graph of the packed pass over real samples, fakes and perturbed twins, some of them in the penalties' own precision,
    with the representation head on the real ones; or with `frozen` of the pass over fakes that trains the generator."""
    batch = config.training.batch
    samples = batch if frozen else 2 * (batch + perturbed(config, batch))
    shallow = replace(config, discriminator=replace(config.discriminator, depth=2))
    with FakeTensorMode():
        network = build_discriminator(shallow).requires_grad_(not frozen)
        network.recompute = checkpointing
        represented = 0 if frozen or network.representation is None else batch
        few = 0 if frozen or not config.precise_penalties else 4 * perturbed(config, batch)
        precise = torch.arange(samples - few, samples) if few else None
        pyramid = [torch.empty(samples, network.channels, n, n, requires_grad=frozen) for n in network.scales]
        y = torch.zeros(samples, dtype=torch.int64)
        forward = partial(network, pyramid, y, represented=represented, precise=precise)
        return measured(config, network, config.discriminator.depth, [y, *pyramid], forward)


def perturbed(config: Config, samples: int) -> int:
    """How many of so many samples of a batch the penalties look at."""
    o, batch = config.objective, config.training.batch
    return -(-len(penalised_samples(batch, o.penalty_fraction)) * samples // batch) if o.penalty else 0


# -- measuring ---------------------------------------------------------------------------------------------------------


def measured(
    config: Config, network: Generator | Discriminator, depth: int, inputs: list[Tensor], forward: Callable[[], Any]
) -> Graph:
    """The graph of a network of that depth, from a pass through one of few blocks: each more keeps what the last does.

    inputs: those of the pass, each with a row per sample.
    """
    given = [*inputs, *network.parameters(), *network.buffers()]
    for t in given:
        if t.requires_grad:
            t.grad = torch.empty_like(t)
    marks: list[dict[str, int]] = []
    with Allocated([*given, *(t.grad for t in given if t.grad is not None)]) as allocated, like_cuda():
        network.blocks[-1].register_forward_pre_hook(lambda *_: marks.append(dict(allocated.now)))
        network.blocks[-1].register_forward_hook(lambda *_: marks.append(dict(allocated.now)))
        with torch.autocast("cpu", torch.bfloat16, enabled=config.training.precision == "bfloat16"):
            outputs = forward()
        kept, runs = allocated.now["rest"], list(zip(marks[::2], marks[1::2], strict=True))
        outputs = [t for t in tree_leaves(outputs) if isinstance(t, Tensor)]
        torch.autograd.backward(outputs, [torch.empty_like(t) for t in outputs])
    more = depth - len(network.blocks)
    block = {kind: sum(after[kind] - before[kind] for before, after in runs) for kind in allocated.now}
    n, working = len(inputs[0]), allocated.most["rest"] - kept
    return Graph((kept + more * block["rest"]) / n, working / n, allocated.most["copies"] + more * block["copies"])


class Allocated(TorchDispatchMode):
    """Counts the bytes of all storages that operations make: `now`, and the `most` that there were at any time.

    Apart from the "rest" are "copies": given tensors in another number format.
    """

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.given = {t.untyped_storage()._cdata for t in given}
        self.known = set(self.given)
        self.now, self.most = {"rest": 0, "copies": 0}, {"rest": 0, "copies": 0}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        copies = function is torch.ops.aten._to_copy.default and args[0].untyped_storage()._cdata in self.given
        tree_map_only(Tensor, lambda t: self.see(t, "copies" if copies else "rest"), result)
        self.most = {kind: max(self.most[kind], self.now[kind]) for kind in self.now}
        return result

    def see(self, tensor: Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now[kind] += size
            weakref.finalize(storage, self.forget, key, kind, size)

    def forget(self, key: int, kind: str, size: int) -> None:
        self.known.discard(key)
        self.now[kind] -= size


# -- what differs on CUDA ----------------------------------------------------------------------------------------------


def like_cuda() -> ExitStack:
    """Run operations on fake CPU tensors as CUDA does under autocast. Not by a mode of PyTorch: the blocks that
    checkpointing runs again in a backward pass would not see it."""
    usual = torch.addcmul

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        result: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
        return result

    def rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
        result: Tensor = FusedRMSNorm.apply(at_least_float32(x), weight)
        return result

    def addcmul(*tensors: Tensor, value: float = 1) -> Tensor:
        return usual(*map(at_least_float32, tensors), value=value)

    stack = ExitStack()
    stack.enter_context(mock.patch("catgan.nn.layers.attend", attend))
    stack.enter_context(mock.patch("torch.nn.functional.rms_norm", rms_norm))
    stack.enter_context(mock.patch("torch.addcmul", addcmul))
    return stack


class FusedRMSNorm(torch.autograd.Function):
    """What CUDA's kernel keeps and makes: the input and its reciprocal root mean square."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, x.new_empty(*x.shape[:-1], 1))
        return torch.empty_like(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), None if weight is None else torch.empty_like(weight)
