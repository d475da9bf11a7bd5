"""The scale-wise discriminator of CAT (paper 3.1, figure 3): one transformer, one logit per scale.

sequence = [cls_0, patches of x_0, cls_1, patches of x_1, ...]    attention is block-diagonal over scales
d_k      = <head(cls_k), Emb(y)>                                  a function of x_k and y alone
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from catgan.config import check_scales, check_width
from catgan.nn.layers import (
    Attention,
    EqualizedLinear,
    RMSNorm,
    SwiGLU,
    at_least_float32,
    checkpointed,
    full_precision,
    linear,
    patchify,
    without_autocast,
)
from catgan.nn.positions import rotary_table, sincos_positions


class DiscriminatorBlock(nn.Module):
    """x += gain * f(norm(x)), for f = attention, then SwiGLU; the gains (LayerScale) start at 0.1."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width, heads)
        self.attention_gain = nn.Parameter(torch.full((width,), 0.1))
        self.mlp_norm = RMSNorm(width)
        self.mlp = SwiGLU(width)
        self.mlp_gain = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor, rotary: Tensor, spans: tuple[int, ...]) -> Tensor:
        """x: tokens (B, T, d); spans: how many of them belong to each scale."""
        x = torch.addcmul(x, self.attention_gain, self.attention(self.attention_norm(x), rotary, spans))
        return torch.addcmul(x, self.mlp_gain, self.mlp(self.mlp_norm(x)))


class Judgement(NamedTuple):
    """Logits of a batch, and what other heads make of its first samples."""

    logits: Tensor  # (B, K + 1)
    represented: Tensor | None  # (represented, 1 + T_K, representation_dim)
    heads: dict[str, Tensor]  # (headed, ...) each


class Discriminator(nn.Module):
    """A pyramid x_0..x_K and its class to logits d_0..d_K.

    With `aggregated` every token attends to every scale: the paper's ablation, in which d_k depends on all x_j.
    Raises UserError for scales and patches that do not fit.
    """

    recompute = False  # activations again in the backward pass, instead of keeping them

    def __init__(
        self,
        *,
        channels: int = 4,  # channels C of a sample
        classes: int = 1000,  # number of classes, 1 is unconditional
        scales: Sequence[int] = (4, 8, 16, 32),  # resolution of each x_k
        patches: Sequence[int] = (2, 2, 2, 2),  # patch size of each scale; equal ones share their embedding
        depth: int = 12,  # transformer blocks
        width: int = 768,  # channels d of a token
        heads: int = 12,  # attention heads
        head_dim: int = 2048,  # size of the projection in which [cls] and class meet
        aggregated: bool = False,  # no mask between scales
        class_mapping: bool = False,  # two layers between a class's embedding and its product with [cls], as in GAT
        representation_dim: int = 0,  # size of the features to predict, 768 for DINOv2-B; 0: no such head
    ) -> None:
        super().__init__()
        check_scales(scales[-1] if scales else 0, tuple(scales), tuple(patches))
        check_width("discriminator", width, heads)
        self.channels, self.width, self.aggregated = channels, width, aggregated
        self.scales, self.patches = tuple(scales), tuple(patches)
        self.embeddings = nn.ModuleDict({str(p): linear(p * p * channels, width) for p in sorted(set(patches))})
        self.cls = nn.Parameter(torch.randn(len(scales), width) * 0.02)
        self.scale_embedding = nn.Parameter(torch.randn(len(scales), width) * 0.02)
        self.blocks = nn.ModuleList(DiscriminatorBlock(width, heads) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.head = linear(width, head_dim)
        self.class_embedding = nn.Embedding(classes, head_dim)
        nn.init.normal_(self.class_embedding.weight, std=0.02)
        self.class_mapping = nn.Sequential()
        if class_mapping:
            self.class_mapping = nn.Sequential(
                EqualizedLinear(head_dim, head_dim), nn.SiLU(), EqualizedLinear(head_dim, head_dim)
            )
        self.representation: nn.Module | None = None
        if representation_dim:
            hidden = 2048
            self.representation = nn.Sequential(
                linear(width, hidden), nn.SiLU(), linear(hidden, hidden), nn.SiLU(), linear(hidden, representation_dim)
            )
        self.heads = nn.ModuleDict()
        for k, (size, patch) in enumerate(zip(scales, patches, strict=True)):
            self.register_buffer(f"positions_{k}", sincos_positions(size // patch, width), persistent=False)
            self.register_buffer(f"rotary_{k}", rotary_table(size // patch, width // heads, 1), persistent=False)

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many tokens each scale has, its [cls] included."""
        return tuple(1 + (size // p) ** 2 for size, p in zip(self.scales, self.patches, strict=True))

    def tokens(self, k: int, x: Tensor) -> Tensor:
        """x_k (B, C, S_k, S_k) to the input tokens of its scale, [cls] first: (B, 1 + T_k, d)."""
        with full_precision(x.device):  # bfloat16 would round the penalties' perturbation of coarse scales away
            patches = self.embeddings[str(self.patches[k])](patchify(x, self.patches[k]))
        patches = patches + self.get_buffer(f"positions_{k}")
        cls = self.cls[k].to(patches.dtype).expand(len(x), 1, -1)
        return torch.cat([cls, patches], dim=1) + self.scale_embedding[k].to(patches.dtype)

    def features(self, pyramid: Sequence[Tensor], scales: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Run the transformer. Returns per scale its tokens after the last block, (B, 1 + T_k, d), [cls] first.

        `scales` names the scale of each entry of the pyramid; by default all of them, coarse to fine.
        """
        scales = range(len(self.scales)) if scales is None else scales
        parts = [self.tokens(k, x) for k, x in zip(scales, pyramid, strict=True)]
        lengths = tuple(part.shape[1] for part in parts)
        rotary = torch.cat([self.get_buffer(f"rotary_{k}") for k in scales], dim=1)
        x = torch.cat(parts, dim=1)
        spans = (x.shape[1],) if self.aggregated else lengths
        for block in self.blocks:
            x = checkpointed(block, self.recompute)(x, rotary, spans)
        return x.split(lengths, dim=1)

    def logits(self, features: Sequence[Tensor], y: Tensor) -> Tensor:
        """Projection conditioning: <head(norm(cls_k)), Emb(y)>, shape (B, scales), Emb mapped where `class_mapping`.

        In float32 (or wider) even under autocast: the penalties divide differences of logits by 0.01.
        """
        with full_precision(y.device):
            cls = at_least_float32(torch.stack([f[:, 0] for f in features], dim=1))
            classes = self.class_mapping(self.class_embedding(y))
            return (self.head(self.norm(cls)) * classes.unsqueeze(1)).sum(dim=-1)

    def judge_apart(
        self, pyramid: Sequence[Tensor], y: Tensor, scales: Sequence[int] | None, represented: int, precise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits, those of the samples `precise` (p,) in float32, and the first `represented` samples' finest tokens.

        Two runs of the transformer, always: FSDP2 gathers weights in each, in step with other processes.
        """
        batch, few = len(y), len(precise)
        order = torch.zeros_like(y).index_fill(0, precise, 1).argsort(stable=True)  # the precise ones last
        runs = (  # where one would be empty, it judges a sample that is not asked for
            (nullcontext(), order[: max(batch - few, 1)], slice(0, batch - few)),
            (without_autocast(y.device), order[-max(few, 1) :], slice(0 if few else 1, None)),
        )
        logits, finest = [], []
        for context, rows, asked in runs:
            with context:
                features = self.features([x[rows] for x in pyramid], scales)
                logits.append(self.logits(features, y[rows])[asked])
                finest.append(features[-1][asked])
        back = order.argsort()
        return torch.cat(logits)[back], torch.cat(finest)[back[:represented]]

    def add_heads(self, heads: Mapping[str, nn.Module]) -> None:
        """Train these with the discriminator: modules from a pyramid x_0..x_K and classes y (B,) to (B, ...).

        A frozen network that a head looks through is best kept where its weights are no parameters of the head.
        """
        self.heads.update(heads)

    def represent(self, features: Sequence[Tensor]) -> Tensor:
        """Predicted encoder features of the finest scale, (B, 1 + T_K, representation_dim), [cls] first."""
        if self.representation is None:
            raise ValueError("this discriminator has no representation head: build it with representation_dim > 0")
        result: Tensor = self.representation(features[-1])
        return result

    def forward(
        self,
        pyramid: Sequence[Tensor],
        y: Tensor,
        scales: Sequence[int] | None = None,
        represented: int = 0,
        headed: int = 0,
        precise: Tensor | None = None,
    ) -> Tensor | Judgement:
        """x_0..x_K, each (B, C, S_k, S_k), and classes y (B,) to logits (B, K + 1).

        With `represented` or `headed` a Judgement: also what `represent` and the added heads give for that many
        samples, the first ones. precise: which samples (p,) are judged in float32 even under autocast.
        """
        if precise is None:
            features = self.features(pyramid, scales)
            logits, finest = self.logits(features, y), features[-1][:represented]
        else:
            logits, finest = self.judge_apart(pyramid, y, scales, represented, precise)
        if not (represented or headed):
            return logits
        tokens = self.represent([finest]) if represented else None
        seen = [x[:headed] for x in pyramid]
        return Judgement(logits, tokens, {name: head(seen, y[:headed]) for name, head in self.heads.items()})
