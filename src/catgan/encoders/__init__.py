"""Frozen pretrained networks behind small interfaces: the VAE of latents, and the encoder of representation alignment."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from catgan.config import WITHOUT_REPRESENTATION, Config
from catgan.data import Dataset, raw_images
from catgan.data.features import StoredFeatures
from catgan.encoders.dino import DINOv2, load_dino
from catgan.encoders.vae import VAE, load_vae
from catgan.errors import UserError, require

__all__ = ["VAE", "DINOv2", "Encoder", "encoder_for", "load_dino", "load_vae", "vae_for"]


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


def encoder_for(
    config: Config, dataset: Dataset, device: torch.device, encoder: Encoder | None = None, resume: bool = False
) -> Encoder | None:
    """The encoder that a run needs, ready on the device, or None if it needs none.

    encoder: one that the caller brings, in place of the DINOv2 that config.encoder names. Raises UserError if the data
    has no raw images, if there is no encoder or it does not fit the representation head, and for a new run with a head
    that nothing would train.
    """
    weight, dim = config.objective.representation, config.discriminator.representation_dim
    if not weight:
        require(
            resume or not dim,
            "discriminator.representation_dim",
            dim,
            "0 where objective.representation is 0, since nothing trains that head",
        )
        return None
    if config.encoder.cached and encoder is None:
        encoder = StoredFeatures(dataset)
        require(
            encoder.size == config.encoder.size, "encoder.size", config.encoder.size, f"{encoder.size}, of the features"
        )
    else:
        raw_images(dataset, np.zeros(1, dtype=np.int64), 0, 0)
    if encoder is None and config.encoder.path is None:
        raise UserError(
            f"objective.representation is {weight:g}, but encoder.path is not set: give a DINOv2, such as "
            f"--encoder.path facebook/dinov2-base, or train without: {WITHOUT_REPRESENTATION}"
        )
    if encoder is None:
        encoder = load_dino(str(config.encoder.path), config.encoder.size, device)
    require(dim == encoder.dim, "discriminator.representation_dim", dim, f"that of the encoder, {encoder.dim}")
    return encoder
