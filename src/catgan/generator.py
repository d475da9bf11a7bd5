"""The generator of CAT (paper A.1, figure 11): a transformer on a fixed grid with accumulated outputs h_0..h_K.

    w   = MLP(concat(norm(Emb(y)), norm(z)))              style, one vector per sample
    h_k = h_{k-1} + out_k(tokens after stage k, w)         k = 0..K, every h_k at full size

Reads top to bottom: block, output layer, generator.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catgan.config import check_depth, check_patch, check_width
from catgan.nn.layers import (
    Attention,
    EqualizedLinear,
    SwiGLU,
    at_least_float32,
    checkpointed,
    full_precision,
    linear,
    rms_norm,
    unpatchify,
)
from catgan.nn.positions import rotary_table, sincos_positions

STYLE_BETA = 0.995  # decay of the running mean of w, per class and update


def modulate(x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    """AdaLN: normalise tokens (B, T, d), then scale and shift them by vectors (B, 1, d) made from w."""
    return rms_norm(x) * (1 + scale) if shift is None else torch.addcmul(shift, rms_norm(x), 1 + scale)


class GeneratorBlock(nn.Module):
    """x += gate * f(norm(x) * (1 + scale) + shift), for f = attention, then SwiGLU; all three factors come from w.

    Without `shift` there is none, as in GAT.
    """

    def __init__(self, width: int, heads: int, shift: bool = True) -> None:
        super().__init__()
        self.modulation = linear(width, (6 if shift else 4) * width, gain=0.1)
        self.attention = Attention(width, heads)
        self.mlp = SwiGLU(width)

    def forward(self, x: Tensor, w: Tensor, rotary: Tensor) -> Tensor:
        """x: tokens (B, T, d); w: (B, d)."""
        factors = self.modulation(F.silu(w)).unsqueeze(1).split(x.shape[-1], dim=-1)
        *attention_shift, attention_scale, attention_gate = factors[: len(factors) // 2]
        *mlp_shift, mlp_scale, mlp_gate = factors[len(factors) // 2 :]
        attended = self.attention(modulate(x, attention_scale, *attention_shift), rotary, (x.shape[1],))
        x = torch.addcmul(x, attention_gate, attended)
        return torch.addcmul(x, mlp_gate, self.mlp(modulate(x, mlp_scale, *mlp_shift)))


class OutputLayer(nn.Module):
    """Tokens of one stage to what that stage adds to the image."""

    def __init__(self, width: int, patch: int, channels: int, shift: bool = True) -> None:
        super().__init__()
        self.patch = patch
        self.modulation = linear(width, (2 if shift else 1) * width, gain=0.1)
        self.pixels = linear(width, patch * patch * channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: tokens (B, T, d); w: (B, d). Returns (B, C, S, S)."""
        *shift, scale = self.modulation(F.silu(w)).unsqueeze(1).split(x.shape[-1], dim=-1)
        return at_least_float32(unpatchify(self.pixels(modulate(x, scale, *shift)), self.patch))


class Generator(nn.Module):
    """z and class to images, in one pass.

    The running mean of w per class (for truncation) is a buffer that only `update_style_mean` changes.
    Raises UserError for a depth that the stages do not divide or a width that the heads do not.
    """

    recompute = False  # activations again in the backward pass, instead of keeping them
    style_sum: Tensor
    style_updates: Tensor
    positions: Tensor
    rotary: Tensor

    def __init__(
        self,
        *,
        size: int = 32,  # height and width S of an output
        channels: int = 4,  # channels C of an output
        classes: int = 1000,  # number of classes, 1 is unconditional
        stages: int = 4,  # K + 1 outputs
        depth: int = 12,  # transformer blocks, a multiple of stages
        width: int = 768,  # channels d of a token and of w
        heads: int = 12,  # attention heads
        patch: int = 2,  # side of a patch; tokens: (size / patch)^2
        z_dim: int = 64,  # size of z
        shift: bool = True,  # w shifts tokens too, or only scales and gates them, as in GAT
    ) -> None:
        super().__init__()
        check_depth(depth, stages)
        check_width("generator", width, heads)
        check_patch(size, patch)
        self.classes, self.z_dim, self.stages, self.width = classes, z_dim, stages, width
        self.class_embedding = nn.Embedding(classes, z_dim)
        nn.init.normal_(self.class_embedding.weight, std=0.02)
        self.mapping = nn.Sequential(EqualizedLinear(2 * z_dim, width), nn.SiLU(), EqualizedLinear(width, width))
        self.blocks = nn.ModuleList(GeneratorBlock(width, heads, shift) for _ in range(depth))
        self.outputs = nn.ModuleList(OutputLayer(width, patch, channels, shift) for _ in range(stages))
        grid = size // patch
        self.register_buffer("positions", sincos_positions(grid, width), persistent=False)
        self.register_buffer("rotary", rotary_table(grid, width // heads), persistent=False)
        self.register_buffer("style_sum", torch.zeros(classes, width))
        self.register_buffer("style_updates", torch.zeros(classes, dtype=torch.int64))

    def style(self, z: Tensor, y: Tensor) -> Tensor:
        """z: (B, z_dim), standard normal; y: (B,) class numbers. Returns w: (B, d)."""
        with full_precision(z.device):
            return self.mapping(torch.cat([rms_norm(self.class_embedding(y)), rms_norm(z)], dim=1))

    def style_mean(self, y: Tensor) -> Tensor:
        """Mean style of the classes y, (B, d): the running average with the bias of its zero start removed."""
        updates = self.style_updates[y, None]
        return self.style_sum[y] / (1 - STYLE_BETA ** updates.to(self.style_sum.dtype)).clamp_min(1e-12)

    def truncate(self, w: Tensor, y: Tensor, psi: float | Tensor) -> Tensor:
        """Pull w towards its class mean: mean + psi * (w - mean). Classes never trained on are left alone."""
        if not isinstance(psi, Tensor) and psi == 1.0:
            return w
        mean = torch.where(self.style_updates[y, None] > 0, self.style_mean(y).to(w.dtype), w)
        return mean + psi * (w - mean)

    @torch.no_grad()
    def update_style_mean(self, w: Tensor, y: Tensor) -> None:
        """One update of the running means with the styles w (B, d) of a whole batch of classes y (B,)."""
        w = w.to(self.style_sum.dtype)
        count = torch.zeros_like(self.style_sum[:, 0]).index_add_(0, y, torch.ones_like(w[:, 0]))[:, None]
        mean = torch.zeros_like(self.style_sum).index_add_(0, y, w) / count.clamp_min(1)
        seen = count > 0
        self.style_sum.copy_(torch.where(seen, STYLE_BETA * self.style_sum + (1 - STYLE_BETA) * mean, self.style_sum))
        self.style_updates.add_(seen[:, 0].to(torch.int64))

    def synthesize(self, w: Tensor, all_stages: bool = False) -> Tensor:
        """w: (B, d) to h_K: (B, C, S, S), or to all h_0..h_K: (K + 1, B, C, S, S)."""
        per_stage = len(self.blocks) // self.stages
        x = self.positions.to(w.dtype).repeat(w.shape[0], 1, 1)
        if torch.is_grad_enabled():
            x.requires_grad_()  # as the input of every later block: compiled, they are one
        h: Tensor | None = None
        stages = []
        for i, block in enumerate(self.blocks):
            x = checkpointed(block, self.recompute)(x, w, self.rotary)
            if (i + 1) % per_stage == 0:
                out = self.outputs[i // per_stage](x, w)
                h = out if h is None else h + out
                stages.append(h)
        return torch.stack(stages) if all_stages else stages[-1]

    def forward(
        self, z: Tensor, y: Tensor, psi: float | Tensor = 1.0, all_stages: bool = False, with_style: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """z: (B, z_dim); y: (B,); psi in [0, 1]. Returns h_K: (B, C, S, S), or with `all_stages` (K + 1, B, C, S, S).

        With `with_style` w (B, d) comes first.
        """
        w = self.truncate(self.style(z, y), y, psi)
        h = self.synthesize(w, all_stages)
        return (w, h) if with_style else h
