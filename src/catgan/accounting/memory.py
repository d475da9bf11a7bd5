"""What a training step holds in a GPU's memory: state by arithmetic, activations as measured in `graphs.py`.

Nothing here is allocated or run on data. Parameters are counted on the real networks without their weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from catgan.accounting.graphs import Graph, discriminator_graph, generator_graph, perturbed
from catgan.accounting.vision import heads_of, kept, kept_by_heads, trunk
from catgan.checkpoint.reading import forecast
from catgan.config import Config
from catgan.networks import build_discriminator, build_generator
from catgan.objective import VISION

WIDE = 4  # bytes of a float32: weights, gradients, moments
ENCODER = 86_580_480  # weights of DINOv2's ViT-B/14


@dataclass(frozen=True)
class Layout:
    """How a run is spread over GPUs, and whether blocks are recomputed in the backward pass."""

    sharded: bool  # FSDP2 shards weights, gradients, moments and EMA; DDP repeats them on every GPU
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
        return self.config(whole).reuses_fakes()


class Networks:
    """The networks of a configuration without their weights."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.a = 2 if config.training.precision == "bfloat16" else WIDE  # bytes of a number in matrix products
        with torch.device("meta"):
            self.generator, self.discriminator = build_generator(config), build_discriminator(config)
        heads = heads_of(config)
        self.discriminator.add_heads({} if heads is None else {VISION: heads})

    @property
    def frozen(self) -> int:
        """Bytes of pretrained weights: DINOv2's, and those that vision-aided heads look through."""
        vision = trunk(self.config)
        return WIDE * (ENCODER * self.aligned + (0 if vision is None else vision.parameters))

    @property
    def aligned(self) -> bool:
        """Whether the discriminator learns to predict DINOv2's features: then the encoder is in memory too."""
        return self.discriminator.representation is not None

    def gathers_wide(self, name: str) -> bool:
        """Whether FSDP2 gathers the blocks of a network in float32."""
        apart = self.config.precise_penalties and bool(self.config.objective.penalty)
        return self.a == WIDE or (name == "discriminator" and apart)

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint on disk."""
        return forecast(
            {"generator": self.generator, "discriminator": self.discriminator, "ema": self.generator}, self.config
        )


# -- state -------------------------------------------------------------------------------------------------------------


def parameter_bytes(network: nn.Module) -> int:
    """Bytes of its parameters."""
    return sum(p.numel() * p.element_size() for p in network.parameters())


def buffer_bytes(network: nn.Module) -> int:
    """Bytes of its buffers, which no sharding divides."""
    return sum(b.numel() * b.element_size() for b in network.buffers())


def moment_bytes(network: nn.Module, config: Config) -> int:
    """Bytes of AdamW's state: two moments, with beta1 = 0 one, and a step counter in float32 for every parameter tensor."""
    return sum(config.kept_moments * p.numel() * p.element_size() + WIDE for p in network.parameters())


def state(n: Networks, share: Share, layout: Layout, training: str) -> dict[str, float]:
    """Bytes by part of what does not grow with the batch, while one network ("generator", "discriminator") trains."""
    g, d = n.generator, n.discriminator
    own = g if training == "generator" else d
    shards = share.gpus if layout.sharded else 1
    # A lone process and FSDP2 drop the gradients of a network after its update; DDP keeps its buckets for both.
    gradients = parameter_bytes(own) if shards > 1 or share.gpus == 1 else parameter_bytes(g) + parameter_bytes(d)
    return {
        "weights": (parameter_bytes(g) + parameter_bytes(d)) / shards + buffer_bytes(g) + buffer_bytes(d),
        "gradients": gradients / shards,
        "moments": (moment_bytes(g, n.config) + moment_bytes(d, n.config)) / shards,
        "ema": parameter_bytes(g) / shards + buffer_bytes(g),
        "encoder": n.frozen,
    }


def whole(n: Networks, name: str) -> tuple[float, float, float]:
    """Bytes of a network as FSDP2 gathers it: all outside its blocks, its blocks, and the largest of them.

    Blocks are gathered in the format of the matrix products, the discriminator's in float32 where it judges penalised
    samples in that.
    """
    network = n.generator if name == "generator" else n.discriminator
    narrow = 1.0 if n.gathers_wide(name) else n.a / WIDE
    blocks = [parameter_bytes(block) for block in network.blocks]
    return parameter_bytes(network) - sum(blocks), sum(blocks) * narrow, max(blocks) * narrow


def gathered(n: Networks) -> float:
    """Bytes that FSDP2 has whole: all outside the blocks, the block at work and the next one, a block's gradient."""
    outside, largest = zip(*(whole(n, name)[::2] for name in ("generator", "discriminator")), strict=True)
    gradient = max(parameter_bytes(block) for network in (n.generator, n.discriminator) for block in network.blocks)
    return sum(outside) + 2 * max(largest) + gradient


def copies(n: Networks, layout: Layout, graphs: dict[str, Graph]) -> float:
    """Bytes of whole weights beside their shards: what FSDP2 gathers, and autocast's copies of what is in float32.

    graphs: by network. They hold autocast's copies for the backward pass. Checkpointed blocks make them anew, and only
    the network whose forward pass runs has them.
    """
    each = [graph.copies for name, graph in graphs.items() if not layout.sharded or n.gathers_wide(name)]
    kept = max(each, default=0.0) if layout.checkpointing else sum(each)
    return kept + (gathered(n) if layout.sharded else 0.0)


# -- the two steps -----------------------------------------------------------------------------------------------------


def peak(n: Networks, share: Share, layout: Layout) -> dict[str, Any]:
    """Bytes by part on one GPU in the fuller of the two steps ("bytes"), and which one that is ("step")."""
    steps = {"discriminator": discriminator_step(n, share, layout), "generator": generator_step(n, share, layout)}
    fullest = max(steps, key=lambda name: sum(steps[name].values()))
    return {"step": fullest, "bytes": steps[fullest]}


def discriminator_step(n: Networks, share: Share, layout: Layout) -> dict[str, float]:
    """The packed pass over real samples, fakes and perturbed twins; beside it the generator's graph if fakes are reused."""
    samples = 2 * (share.micro + perturbed(n.config, share.micro))
    d = discriminator_graph(n.config, layout.checkpointing)
    reuses = share.reuses_fakes(n.config)
    waiting = {"generator": generator_graph(n.config, layout.checkpointing)} if reuses else {}
    return state(n, share, layout, "discriminator") | {
        "gathered": copies(n, layout, {"discriminator": d, **waiting}),
        "activations": d.kept * samples
        + (sum(graph.kept for graph in waiting.values()) + 2 * kept_by_heads(n.config)) * share.micro,
        "backward": d.working * samples,
    }


def generator_step(n: Networks, share: Share, layout: Layout) -> dict[str, float]:
    """The generator's graph, then that of the frozen discriminator on its fakes, which is gone when the former's turn
    comes in the backward pass."""
    g = generator_graph(n.config, layout.checkpointing)
    d = discriminator_graph(n.config, layout.checkpointing, frozen=True)
    return state(n, share, layout, "generator") | {
        "gathered": copies(n, layout, {"generator": g, "discriminator": d}),
        "activations": (g.kept + d.kept + kept(n.config) + kept_by_heads(n.config)) * share.micro,
        "backward": max(d.working, g.working - d.kept) * share.micro,
    }
