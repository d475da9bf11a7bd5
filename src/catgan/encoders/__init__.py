"""Frozen pretrained networks behind small interfaces: the VAE of latents, and the encoder of representation alignment."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from catgan.config import Config
from catgan.encoders.dino import DINOv2, load_dino
from catgan.encoders.vae import VAE, load_vae
from catgan.errors import require

__all__ = ["VAE", "DINOv2", "Encoder", "load_dino", "load_vae", "vae_for"]


class Encoder(Protocol):
    """What representation alignment needs of a frozen network; `DINOv2` is one."""

    dim: int  # D, channels of a feature
    identity: str  # a digest of its weights: a run is resumed only with equal ones

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """RGB images (B, 3, S, S), uint8 or float in [-1, 1], to a class token (B, D) and patch tokens (B, n, n, D)."""
        ...


def vae_for(config: Config, path: str, device: torch.device, precision: str, option: str = "--sample.vae") -> VAE:
    """The VAE of that path for the samples of a configuration. Raises UserError for one that cannot be theirs."""
    vae, s = load_vae(path, device, precision, option=option), config.sample
    require(vae.channels == s.channels, "sample.channels", s.channels, f"{vae.channels} for VAE {path}")
    require(
        vae.scale == s.latent_scale, f"scaling_factor of VAE {path}", vae.scale, f"{s.latent_scale}, as in training"
    )
    if s.vae_identity is not None:
        require(
            vae.encoder_identity == s.vae_identity,
            f"VAE {path}: the digest of its encoder",
            vae.encoder_identity,
            f"{s.vae_identity}, of the VAE that made the latents",
            f"name that one with {option}",
        )
    return vae
