"""What a run shows of itself while it trains: samples, and the stages of some of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from catgan.config import Config
from catgan.draws import sample_z
from catgan.encoders import VAE, vae_for
from catgan.errors import UserError
from catgan.images import grid, save_png, tile_zoom, to_bytes, visible


class Previews:
    """Draws the previews of one run, always of the same classes and seeds."""

    def __init__(self, config: Config, folder: Path, device: torch.device, say: Callable[[str], None]) -> None:
        """say: told once if latents cannot be decoded."""
        self.config, self.folder, self.device, self.say = config, folder, device, say

    def draw(self, synthesize: Callable[[Tensor, Tensor], Tensor], step: int) -> None:
        """A grid of samples (a column per class) and a grid of stages (h_0..h_K of one sample per row).

        synthesize: z (n, z_dim) and classes (n,) to stages (K + 1, n, C, S, S).
        """
        c = self.config
        classes, rows = c.previewed, c.log.preview_rows
        shown = len(classes)
        y = torch.tensor(classes * rows, device=self.device)
        h = synthesize(sample_z(range(len(y)), c.generator.z_dim).to(self.device), y)
        pixels, stages = to_bytes(self.visible(h[-1])), to_bytes(self.visible(h[:, :shown]))
        zoom = tile_zoom(pixels.shape[1])
        samples = [[pixels[row * shown + k] for k in range(shown)] for row in range(rows)]
        save_png(grid(samples, zoom), self.folder / f"samples-{step:08d}.png")
        save_png(grid([list(stages[:, k]) for k in range(shown)], zoom), self.folder / f"stages-{step:08d}.png")

    @cached_property
    def vae(self) -> VAE | None:
        """The VAE that decodes previews; None for samples that are pixels, or if it cannot be had."""
        path = self.config.sample.vae
        if path is None:
            return None
        try:
            return vae_for(self.config, path, self.device, self.config.training.precision)
        except UserError as error:
            self.say(f"previews show channels of the latents, not pictures: {error}")
            return None

    def visible(self, h: Tensor) -> Tensor:
        """Something to look at: samples (..., C, S, S) decoded by their VAE if there is one."""
        return visible(h) if self.vae is None else self.vae.decode(h.flatten(0, -4)).unflatten(0, h.shape[:-3])
