"""Layers shared by generator and discriminator: attention, SwiGLU, equalised linear, patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from catgan.nn.positions import rotate
from catgan.system.devices import tensor_float32

EPS = 1e-6  # of every RMS normalisation


def rms_norm(x: Tensor) -> Tensor:
    """x divided by the root mean square of its last dimension: RMSNorm without gain."""
    return F.rms_norm(x, (x.shape[-1],), eps=EPS)


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or wider if it is: for sums that bfloat16 would round away."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Switch autocast off. The meta device, which only counts, knows none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Switch autocast off, and TensorFloat-32, which would round to 10 bits."""
    with without_autocast(device), tensor_float32(False):
        yield


def checkpointed(block: nn.Module, recompute: bool) -> Callable[..., Tensor]:
    """The block, or with `recompute` one that keeps its inputs alone and runs again in the backward pass."""
    if recompute and torch.is_grad_enabled():
        return partial(checkpoint, block, use_reentrant=False, preserve_rng_state=False)
    return block


class RMSNorm(nn.Module):
    """RMS normalisation of the last dimension with a learned gain, in the number format of its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), EPS)


def linear(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    """A linear layer that starts Xavier-uniform with the given gain and zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight, gain=gain)
    nn.init.zeros_(layer.bias)
    return layer


class EqualizedLinear(nn.Module):
    """Linear layer that learns `multiplier` times as fast (StyleGAN's trick).

    Weights are stored divided by the multiplier and used times it: Adam's steps, which do not see the size of a
    gradient, shrink by it relative to the weights.
    """

    def __init__(self, inputs: int, outputs: int, multiplier: float = 0.01) -> None:
        super().__init__()
        self.multiplier = multiplier
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.xavier_uniform_(self.weight, gain=1.0 / multiplier)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.multiplier, self.bias * self.multiplier)


SHORT = 80  # tokens up to which plain matrix products beat the fused kernel on CPU


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(head_size)) v, each (B, heads, T, head_size)."""
    if q.shape[2] <= SHORT and q.device.type == "cpu":
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return scores.softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


def attend_within(q: Tensor, k: Tensor, v: Tensor, spans: Sequence[int]) -> Tensor:
    """`attend` in each of the runs of tokens that `spans` splits the sequence into. All (B, T, heads, channels)."""
    parts = zip(*(t.transpose(1, 2).split(tuple(spans), dim=2) for t in (q, k, v)), strict=True)
    return torch.cat([attend(*part).transpose(1, 2) for part in parts], dim=1)


class Attention(nn.Module):
    """Multi-head self-attention, with RMSNorm on queries and keys per head and rotary positions.

    `spans` splits the sequence into runs of tokens that attend to themselves only: a block-diagonal mask at the
    price of its blocks, since each run is one attention call and nothing outside the blocks is computed.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = linear(width, 3 * width)
        self.query_norm = RMSNorm(width // heads)
        self.key_norm = RMSNorm(width // heads)
        self.out = linear(width, width)

    def project(self, x: Tensor, rotary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, normalised and rotated, and values of x (B, T, width): each (B, T, heads, head_size)."""
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).unbind(2)
        q, k = rotate(self.query_norm(q), rotary), rotate(self.key_norm(k), rotary)
        return q.to(v.dtype), k.to(v.dtype), v

    def forward(self, x: Tensor, rotary: Tensor, spans: Sequence[int]) -> Tensor:
        """x: (B, T, width); rotary: (2, T, head_size / 2); spans: lengths that add up to T. Returns (B, T, width)."""
        q, k, v = self.project(x, rotary)
        return self.out(attend_within(q, k, v, spans).flatten(2))


class SwiGLU(nn.Module):
    """Feed-forward layer silu(a) * b with biases; hidden width 2/3 * 4 * width, rounded up to a multiple of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = -(-int(width * 8 / 3) // 8) * 8
        self.gate_up = linear(width, 2 * hidden)
        self.down = linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        # Spelled out for the compiler, which takes the exponential of F.silu twice in the backward pass.
        activated = gate * gate.sigmoid() if torch.compiler.is_compiling() else F.silu(gate)
        return self.down(activated * up)


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, C, S, S) to patch tokens (B, (S / patch)^2, patch * patch * C), row-major, channels last in a token."""
    batch, channels, size, _ = x.shape
    grid = size // patch
    x = x.view(batch, channels, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(batch, grid * grid, patch * patch * channels)


def unpatchify(tokens: Tensor, patch: int) -> Tensor:
    """The inverse of `patchify`: (B, G * G, patch * patch * C) to (B, C, G * patch, G * patch)."""
    batch, count, size = tokens.shape
    grid, channels = round(count**0.5), size // patch**2
    x = tokens.view(batch, grid, grid, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(batch, channels, grid * patch, grid * patch)
