"""Pretrained networks' architectures with random weights, small enough for tests; drawn from torch's current random state."""

from __future__ import annotations

from typing import Any


def vae(blocks: tuple[int, ...] = (8, 8, 8, 8), layers: int = 1) -> Any:
    """An AutoencoderKL of diffusers with SD's layout: 4 channels, 8 pixels per latent's. By default a few thousand weights."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=blocks,
        down_block_types=("DownEncoderBlock2D",) * len(blocks),
        up_block_types=("UpDecoderBlock2D",) * len(blocks),
        norm_num_groups=min(32, min(blocks) // 2),
        latent_channels=4,
        layers_per_block=layers,
    )


def dino() -> Any:
    """A Dinov2Model of transformers: 32 channels, patches of 14 pixels, made for 56."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=56, initializer_range=0.5
    )
    return Dinov2Model(config)
