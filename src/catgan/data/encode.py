"""Pictures through a VAE's encoder, for `catgan prepare --vae`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from catgan.encoders.vae import VAE
from catgan.errors import UserError, require
from catgan.images import from_bytes


class LatentEncoder:
    """A VAE with how it is used."""

    def __init__(self, vae: VAE, device: str | torch.device = "cpu", flip: bool = False, batch: int = 32) -> None:
        """flip: also encode mirrored pictures. batch: pictures per pass."""
        self.vae, self.device, self.flip, self.batch = vae, device, flip, batch

    @property
    def path(self) -> str:
        """Where the VAE was found, in a form that holds in other folders too."""
        folder = Path(self.vae.path)
        return str(folder.absolute()) if folder.exists() else self.vae.path

    def check(self, size: int, channels: int) -> None:
        """Raise UserError unless the VAE can take such pictures."""
        if channels != 3:
            raise UserError(f"--channels is {channels}: a VAE takes colour pictures; leave it out or set it to 3")
        require(size % self.vae.downsample == 0, "--size", size, f"a multiple of {self.vae.downsample} for this VAE")

    def describe(self, size: int) -> dict[str, Any]:
        """What prepared data remembers of it."""
        return {
            "identity": self.vae.encoder_identity,
            "scale": self.vae.scale,
            "channels": self.vae.channels,
            "size": size // self.vae.downsample,
            "flip": self.flip,
        }

    @torch.no_grad()
    def moments(self, pixels: np.ndarray) -> list[np.ndarray]:
        """uint8 (B, S, S, 3) to float16 moments (B, 2C, s, s): of the pictures, and with `flip` of their mirror images."""
        x = from_bytes(torch.from_numpy(pixels).to(self.device).movedim(-1, 1))
        seen = [x, x.flip(-1)] if self.flip else [x]
        return [self.vae.moments(part.contiguous()).half().cpu().numpy() for part in seen]
