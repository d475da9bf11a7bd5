"""Pictures through a VAE's encoder, for `catgan prepare --vae`."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from catgan.errors import UserError


class VAE(Protocol):
    """What is asked of a VAE."""

    scale: float  # latents times this have about unit variance
    downsample: int  # pixels per latent pixel
    channels: int  # C of a latent
    identity: str  # digest of the weights

    def moments(self, x: Tensor) -> Tensor:
        """(B, 3, S, S), float32 in [-1, 1], to mean and standard deviation (B, 2C, S/8, S/8), float32, unscaled."""
        ...


class Encoder:
    """A VAE with how it is used."""

    def __init__(self, vae: VAE, device: str | torch.device = "cpu", flip: bool = False, batch: int = 32) -> None:
        """flip: also encode mirrored pictures. batch: pictures per pass."""
        self.vae, self.device, self.flip, self.batch = vae, device, flip, batch

    def check(self, size: int, channels: int) -> None:
        """Raise UserError unless the VAE can take such pictures."""
        if channels != 3:
            raise UserError(f"--channels is {channels}: a VAE takes colour pictures; leave it out or set it to 3")
        if size % self.vae.downsample:
            raise UserError(f"--size is {size}: must be a multiple of {self.vae.downsample} for this VAE")

    def describe(self, size: int) -> dict[str, Any]:
        """What prepared data remembers of it."""
        return {
            "identity": self.vae.identity,
            "scale": self.vae.scale,
            "channels": self.vae.channels,
            "size": size // self.vae.downsample,
            "flip": self.flip,
        }

    @torch.no_grad()
    def moments(self, pixels: np.ndarray) -> list[np.ndarray]:
        """uint8 (B, S, S, 3) to float16 moments (B, 2C, s, s): of the pictures, and with `flip` of their mirror images."""
        x = torch.from_numpy(pixels).to(self.device).movedim(-1, 1).float() / 127.5 - 1
        seen = [x, x.flip(-1)] if self.flip else [x]
        return [self.vae.moments(part.contiguous()).half().cpu().numpy() for part in seen]
