"""What a training step keeps in a GPU's memory, by closed form; nothing here is allocated or run.

State (weights, gradients, moments, average) is counted on the real networks without their weights. Activations are
what autograd keeps for the backward pass on CUDA, with fused attention and fused RMSNorm: `docs/plan.md` derives each
line, the tests compare it with what autograd really keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from catgan.config import Config
from catgan.discriminator import Discriminator
from catgan.generator import Generator
from catgan.networks import build_discriminator, build_generator
from catgan.nn.layers import SwiGLU
from catgan.objective.supervision import penalised_samples

WIDE = 4  # bytes of a float32: weights, gradients, moments, the residual stream
ENCODER = 86_580_480  # weights of DINOv2's ViT-B/14


@dataclass(frozen=True)
class Saved:
    """Bytes that autograd keeps: per token of every sample, and per sample."""

    token: float = 0.0
    sample: float = 0.0

    def __add__(self, other: Saved) -> Saved:
        return Saved(self.token + other.token, self.sample + other.sample)

    def __mul__(self, times: int) -> Saved:
        return Saved(self.token * times, self.sample * times)

    def bytes(self, samples: int, tokens: int) -> float:
        return samples * (tokens * self.token + self.sample)


@dataclass(frozen=True)
class Layout:
    """How a run is spread over GPUs, and whether blocks are recomputed in the backward pass."""

    sharded: bool  # FSDP2 shards weights, gradients, moments and average; DDP repeats them on every GPU
    checkpointing: bool


@dataclass(frozen=True)
class Share:
    """What one GPU does of a step: `local` samples of the batch, `micro` of them at a time."""

    gpus: int
    local: int
    micro: int

    def config(self, whole: Config) -> Config:
        """The configuration of the run as this GPU sees it."""
        micro = 0 if self.micro == self.local else self.micro
        return replace(whole, training=replace(whole.training, batch=self.local, micro_batch=micro))

    def reuses_fakes(self, whole: Config) -> bool:
        return self.config(whole).reuses_fakes


# -- graphs of the layers, with matrix products in `a` bytes: 2 (bfloat16 autocast) or 4 (float32) --------------------


def attention(width: int, heads: int, a: int, trained: bool = True) -> Saved:
    """`nn.layers.Attention`. The input of the projection is counted by the layer before it."""
    upcast = 2 * WIDE * width if a < WIDE else 0  # q and k in float32 for their RMSNorm; in float32 a view of qkv
    qkv, rotated, out = 3 * a * width, 2 * a * width, a * width
    into_projection = a * width if trained else 0
    statistics = (2 + 1) * WIDE * heads  # reciprocal RMS of q and k, log-sum-exp of the softmax
    return Saved(upcast + qkv + rotated + out + into_projection + statistics)


def swiglu(hidden: int, a: int, trained: bool = True) -> Saved:
    """`nn.layers.SwiGLU`: gate and up, silu(gate), and their product, which only the weights of `down` need."""
    return Saved((2 + 1 + trained) * a * hidden)


def generator_block(width: int, heads: int, hidden: int, a: int) -> Saved:
    """`GeneratorBlock`. Twice: residual stream, its reciprocal RMS, its norm, the modulated norm, the branch's output."""
    twice = Saved(WIDE * width + WIDE + WIDE * width + a * width + WIDE * width)
    # silu(w) goes into the modulation; two scales plus one; two gates, in float32 views of all six factors.
    gates = 2 * WIDE * width if a < WIDE else 6 * WIDE * width
    modulation = Saved(sample=a * width + 2 * WIDE * width + gates)
    return twice * 2 + attention(width, heads, a) + swiglu(hidden, a) + modulation


def discriminator_block(width: int, heads: int, hidden: int, a: int, trained: bool = True) -> Saved:
    """`DiscriminatorBlock`. Twice: residual stream and its reciprocal RMS; if trained, the norm and the branch's output."""
    twice = Saved(WIDE * width + WIDE + (a + WIDE) * width * trained)
    return twice * 2 + attention(width, heads, a, trained) + swiglu(hidden, a, trained)


def output_layer(width: int, a: int) -> Saved:
    """`OutputLayer`: the reciprocal RMS, the norm, the modulated norm; silu(w) and one plus the scale."""
    return Saved(WIDE + WIDE * width + a * width, sample=a * width + WIDE * width)


def representation_head(width: int, hidden: int, a: int, tokens: int) -> Saved:
    """The representation head on the tokens of one scale: input, and two hidden layers before and after SiLU."""
    return Saved(sample=tokens * a * (width + 4 * hidden))


# -- the two networks --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Graph:
    """A network's graph: what it keeps per block, beside its blocks, and what a checkpoint of a block keeps instead."""

    tokens: int
    depth: int
    block: Saved
    rest: Saved
    stream: int
    """Bytes of the residual stream per token, which is all that a checkpointed block keeps."""
    working: float
    """Bytes per token of gradients on their way back through a block: an estimate."""
    entry: int = 0
    """Bytes per token of the first block's input, where it is in memory of its own."""

    def kept(self, samples: int, checkpointing: bool = False) -> float:
        """Bytes that stay from the forward to the backward pass; with checkpointing each block's input alone."""
        blocks = Saved(token=self.stream) if checkpointing else self.block
        entry = Saved(token=0 if checkpointing else self.entry)
        return (blocks * self.depth + self.rest + entry).bytes(samples, self.tokens)

    def backward(self, samples: int, checkpointing: bool = False) -> float:
        """Bytes at work in the backward pass beside those; with checkpointing one block's graph is there again."""
        recomputed = self.block.bytes(samples, self.tokens) if checkpointing else 0.0
        return recomputed + samples * self.tokens * self.working


class Networks:
    """The networks of a configuration without their weights, and the closed forms of their memory."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.a = 2 if config.training.precision == "bfloat16" else 4
        with torch.device("meta"):
            self.generator: Generator = build_generator(config)
            self.discriminator: Discriminator = build_discriminator(config)

    @property
    def aligned(self) -> bool:
        """Whether the discriminator learns to predict DINOv2's features: then the encoder is in memory too."""
        return self.discriminator.representation is not None

    @cached_property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint on disk."""
        from catgan.checkpoint.reading import forecast  # training imports what needs these closed forms

        return forecast({"generator": self.generator, "discriminator": self.discriminator, "ema": self.generator})

    @cached_property
    def generator_graph(self) -> Graph:
        """The whole generator: blocks, output layers, and w."""
        s, g, a = self.config.sample, self.config.generator, self.a
        tokens, hidden = (s.size // g.patch) ** 2, hidden_width(self.generator)
        block = generator_block(g.width, g.heads, hidden, a)
        style = Saved(sample=WIDE * (g.width + 2 * g.width + 2 * 2 * g.z_dim))  # w, mapping network, its inputs
        return Graph(
            tokens, g.depth, block, output_layer(g.width, a) * len(s.scales) + style, WIDE * g.width,
            backward_working(g.width, hidden, a), entry=WIDE * g.width,
        )  # fmt: skip

    def discriminator_graph(self, trained: bool = True) -> Graph:
        """The discriminator on samples at all scales, without its representation head."""
        s, d, a = self.config.sample, self.config.discriminator, self.a
        patches = [(n // p) ** 2 for n, p in zip(s.scales, d.patches, strict=True)]
        tokens, hidden = sum(patches) + len(patches), hidden_width(self.discriminator)
        block = discriminator_block(d.width, d.heads, hidden, a, trained)
        pixels = s.channels * sum(n * n for n in s.scales) * a * trained  # into the patch embeddings
        # Per scale: [cls], its norm, and the head's output; per sample the class embedding.
        logits = WIDE * (len(patches) * ((1 + trained) * d.width + d.head_dim * trained) + d.head_dim)
        return Graph(
            tokens, d.depth, block, Saved(sample=pixels + logits), WIDE * d.width, backward_working(d.width, hidden, a)
        )

    @cached_property
    def head_graph(self) -> Saved:
        """The representation head on one real sample."""
        head = self.discriminator.representation
        if head is None:
            return Saved()
        s, d = self.config.sample, self.config.discriminator
        tokens = 1 + (s.scales[-1] // d.patches[-1]) ** 2
        hidden = next(m.out_features for m in head.modules() if isinstance(m, nn.Linear))
        return representation_head(d.width, hidden, self.a, tokens)

    def perturbed(self, samples: int) -> int:
        """How many of so many samples of a batch the penalties look at."""
        o, batch = self.config.objective, self.config.training.batch
        return -(-len(penalised_samples(batch, o.penalty_fraction)) * samples // batch) if o.penalty else 0


def hidden_width(network: nn.Module) -> int:
    """Hidden width of the feed-forward layers."""
    return next(m.down.in_features for m in network.modules() if isinstance(m, SwiGLU))


def backward_working(width: int, hidden: int, a: int) -> float:
    """Bytes per token where a backward pass is at its fullest, in SwiGLU of the last block: the gradients of the
    product, of one factor, and of the residual stream."""
    return 2 * a * hidden + WIDE * width


# -- state -------------------------------------------------------------------------------------------------------------


def parameters(network: nn.Module) -> int:
    """Bytes of its parameters."""
    return sum(p.numel() * p.element_size() for p in network.parameters())


def buffers(network: nn.Module) -> int:
    """Bytes of its buffers, which no sharding divides."""
    return sum(b.numel() * b.element_size() for b in network.buffers())


def moments(network: nn.Module) -> int:
    """Bytes of AdamW's state: two moments, and a step counter in float32 for every parameter tensor."""
    return sum(2 * p.numel() * p.element_size() + WIDE for p in network.parameters())


def copied(network: Generator | Discriminator) -> int:
    """Elements of the weights that autocast copies to bfloat16: those of linear layers, but for the logits' head."""
    linear = sum(m.weight.numel() for m in network.modules() if isinstance(m, nn.Linear))
    return linear - (network.head.weight.numel() if isinstance(network, Discriminator) else 0)


def state(n: Networks, share: Share, layout: Layout, training: str, copies: int) -> dict[str, float]:
    """What does not grow with the batch, while one network is training.

    copies: elements of the weights of which the graphs hold bfloat16 copies.
    """
    g, d = n.generator, n.discriminator
    own = g if training == "generator" else d
    shards = share.gpus if layout.sharded else 1
    # A lone process and FSDP2 drop the gradients of a network after its update; DDP keeps its buckets for both.
    gradients = parameters(own) if shards > 1 or share.gpus == 1 else parameters(g) + parameters(d)
    return {
        "weights": (parameters(g) + parameters(d)) / shards + buffers(g) + buffers(d),
        "gradients": gradients / shards,
        "moments": (moments(g) + moments(d)) / shards,
        "ema": parameters(g) / shards + buffers(g),
        "gathered": gathered(n) if shards > 1 else cast(n, layout, copies),
        "encoder": WIDE * ENCODER if n.aligned else 0,
    }


def cast(n: Networks, layout: Layout, copies: int) -> float:
    """Bytes of the copies of weights that autocast makes. Graphs hold them for the backward pass; checkpointed blocks
    make them anew, and only the network whose forward pass runs has them."""
    if n.a == WIDE:
        return 0.0
    return n.a * (max(copied(n.generator), copied(n.discriminator)) if layout.checkpointing else copies)


def gathered(n: Networks) -> float:
    """Bytes that FSDP2 has whole: all outside the blocks, the block at work and the next one, a block's gradient."""
    outside, largest = 0, 0
    for network in (n.generator, n.discriminator):
        blocks = [parameters(block) for block in network.blocks]
        outside += parameters(network) - sum(blocks)
        largest = max(largest, *blocks)
    return (outside + 2 * largest) * n.a / WIDE + largest


# -- the two steps -----------------------------------------------------------------------------------------------------


def peak(n: Networks, share: Share, layout: Layout) -> dict[str, Any]:
    """Bytes on one GPU in the fuller of the two steps, and which one that is."""
    steps = {
        "discriminator": discriminator_step(n, share, layout),
        "generator": generator_step(n, share, layout),
    }
    fullest = max(steps, key=lambda name: sum(steps[name].values()))
    return {"step": fullest, "bytes": steps[fullest]}


def discriminator_step(n: Networks, share: Share, layout: Layout) -> dict[str, float]:
    """The packed pass over real samples, fakes and perturbed twins; beside it the generator's graph if fakes are reused."""
    checkpointing, samples = layout.checkpointing, 2 * (share.micro + n.perturbed(share.micro))
    d = n.discriminator_graph()
    kept = d.kept(samples, checkpointing) + n.head_graph.bytes(share.micro, 0)
    copies = copied(n.discriminator)
    if share.reuses_fakes(n.config):
        kept += n.generator_graph.kept(share.micro, checkpointing)
        copies += copied(n.generator)
    return state(n, share, layout, "discriminator", copies) | {
        "activations": kept,
        "backward": d.backward(samples, checkpointing),
    }


def generator_step(n: Networks, share: Share, layout: Layout) -> dict[str, float]:
    """The generator's graph, then that of the frozen discriminator on its fakes."""
    checkpointing, samples = layout.checkpointing, share.micro
    graphs = (n.generator_graph, n.discriminator_graph(trained=False))
    return state(n, share, layout, "generator", copied(n.generator) + copied(n.discriminator)) | {
        "activations": sum(graph.kept(samples, checkpointing) for graph in graphs),
        "backward": max(graph.backward(samples, checkpointing) for graph in graphs),
    }
