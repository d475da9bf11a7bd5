"""The networks and the pyramid of a configuration."""

from __future__ import annotations

import torch

from catgan.config import Config
from catgan.discriminator import Discriminator
from catgan.generator import Generator
from catgan.pyramid import Pyramid


def build_generator(config: Config) -> Generator:
    """The generator of a configuration, with weights drawn from torch's current random state."""
    s, g = config.sample, config.generator
    return Generator(
        size=s.size, channels=s.channels, classes=s.classes, stages=len(s.scales),
        depth=g.depth, width=g.width, heads=g.heads, patch=g.patch, z_dim=g.z_dim, shift=g.shift,
    )  # fmt: skip


def build_discriminator(config: Config) -> Discriminator:
    """The discriminator of a configuration, with weights drawn from torch's current random state."""
    s, d = config.sample, config.discriminator
    channels, scales, patches = s.channels, s.scales, d.patches
    if config.objective.supervision == "noise_levels":  # stages as channels, on the grid of the finest scale
        channels, scales, patches = s.channels * len(s.scales), s.scales[-1:], d.patches[-1:]
    return Discriminator(
        channels=channels, classes=s.classes, scales=scales, patches=patches, depth=d.depth, width=d.width,
        heads=d.heads, head_dim=d.head_dim, aggregated=d.aggregated, class_mapping=d.class_mapping,
        representation_dim=d.representation_dim,
    )  # fmt: skip


def build_pyramid(config: Config) -> Pyramid:
    """r_0..r_K of a configuration."""
    return Pyramid(config.sample.scales, config.sample.down, config.sample.up)


def build_networks(config: Config) -> tuple[Generator, Discriminator]:
    """Both networks, with initial weights that depend on the seed alone. Leaves torch's random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        return build_generator(config), build_discriminator(config)
