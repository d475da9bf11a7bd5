"""The VAE between pictures and latents: a frozen AutoencoderKL of diffusers (paper: SD-VAE)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from catgan.encoders.files import find_folder, fingerprint, from_pretrained
from catgan.errors import UserError, require
from catgan.system.packages import need

FILES = ("config.json", "diffusion_pytorch_model.safetensors")


class VAE:
    """Pictures (B, 3, S, S) in [-1, 1] to moments of latents (B, C, S/8, S/8), and latents to pictures. Frozen.

    Made by `load_vae`. Results are float32 and on the device of the argument.
    """

    def __init__(self, model: Any, path: str) -> None:
        """model: diffusers' AutoencoderKL; path: the name it was asked for by."""
        config = model.config
        self.model, self.path = model, path
        self.channels = int(config.latent_channels)  # C
        self.downsample = 2 ** (len(config.block_out_channels) - 1)  # picture pixels per latent pixel, 8 for SD-VAE
        self.scale = float(config.scaling_factor)  # latents times this have about unit variance, 0.18215 for SD-VAE
        self.identity = fingerprint(model)
        makes = [part for part in (model.encoder, model.quant_conv) if part is not None]
        self.encoder_identity = fingerprint(nn.ModuleList(makes))  # equal for VAEs that share their latents
        self.precision = "float32"

    def to(self, device: torch.device | str, precision: str = "float32") -> VAE:
        """Move to a device, and compute in float32 or bfloat16 (weights stay in float32). Returns self."""
        require(precision in ("float32", "bfloat16"), "precision", precision, "float32 or bfloat16")
        self.model.to(device)
        self.precision = precision
        return self

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    @torch.no_grad()
    def moments(self, x: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) in [-1, 1] to the posterior's mean, then standard deviation: (B, 2C, S/8, S/8), unscaled.

        Raises UserError unless S is a multiple of `downsample`.
        """
        if x.shape[-1] % self.downsample or x.shape[-2] % self.downsample:
            raise UserError(
                f"pictures have {x.shape[-1]} pixels: must be a multiple of {self.downsample} for {self.path}"
            )
        with self.autocast():
            posterior = self.model.encode(x.to(self.model.device)).latent_dist
        std = (0.5 * posterior.logvar.float()).exp()
        return torch.cat([posterior.mean.float(), std], dim=1).to(x.device)

    @torch.no_grad()
    def decode(self, latents: Tensor, batch: int = 8) -> Tensor:
        """Scaled latents (B, C, s, s), as a generator makes them, to pictures (B, 3, 8s, 8s) in [-1, 1], clipped.

        batch: latents per pass; fewer need less memory.
        """
        parts = []
        for part in latents.split(batch):
            with self.autocast():
                pictures = self.model.decode(part.to(self.model.device) / self.scale).sample
            parts.append(pictures.float().clamp(-1, 1).to(latents.device))
        return torch.cat(parts)


def load_vae(
    path: str,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    tiling: bool = False,
    option: str = "--sample.vae",
) -> VAE:
    """Load a VAE from a folder or by its name on the Hugging Face Hub, such as stabilityai/sd-vae-ft-ema.

    precision: float32 or bfloat16. tiling: decode pictures larger than the VAE was made for in overlapping tiles, with
    less memory and faint seams. option: what the message names when there is no such VAE. Raises UserError for a
    missing package or file, for damaged weights, and for a VAE with shifted latents, which no dataset here has.
    """
    what = f"VAE {path}"
    need("diffusers", what, "encoders")
    folder = find_folder(path, FILES, what, f"{option} FOLDER")
    from diffusers import AutoencoderKL

    model: Any = from_pretrained(AutoencoderKL, folder, what, torch_dtype=torch.float32, low_cpu_mem_usage=False)
    for name in ("shift_factor", "latents_mean", "latents_std"):
        if getattr(model.config, name, None):
            raise UserError(f"{what} has {name} {getattr(model.config, name)}: must have none, like SD-VAE")
    if tiling:
        model.enable_tiling()
    return VAE(model, path).to(device, precision)
