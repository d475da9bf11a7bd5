"""What a run shows of itself while it trains: samples, the stages of some of them, and real samples beside them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from catgan.config import Config
from catgan.data import Dataset, rows
from catgan.draws import sample_z
from catgan.encoders import VAE, vae_for
from catgan.errors import UserError
from catgan.images import grid, save_png, tile_zoom, to_bytes, visible

LOOKED_AT = 256  # real samples, where their classes are not known beforehand


class Previews:
    """Draws the previews of one run, always of the same classes and seeds."""

    def __init__(
        self, config: Config, folder: Path, device: torch.device, say: Callable[[str], None], dataset: Dataset
    ) -> None:
        """say: told once if latents cannot be decoded."""
        self.config, self.folder, self.device, self.say, self.dataset = config, folder, device, say, dataset

    def draw(self, synthesize: Callable[[Tensor, Tensor], Tensor], step: int) -> None:
        """A grid of samples (a column per class; several of an only one) and a grid of stages (h_0..h_K of one sample per row).

        synthesize: z (n, z_dim) and classes (n,) to stages (K + 1, n, C, S, S).
        """
        if not (self.folder / "real.png").exists():
            self.draw_real()
        c = self.config
        classes, count = c.previewed, c.log.preview_rows
        shown = len(classes)
        y = torch.tensor(classes * count, device=self.device)
        h = synthesize(sample_z(range(len(y)), c.generator.z_dim).to(self.device), y)
        pixels, stages = to_bytes(self.visible(h[-1])), to_bytes(self.visible(h[:, :shown]))
        zoom = tile_zoom(pixels.shape[1])
        samples = [[pixels[row * shown + k] for k in range(shown)] for row in range(count)]
        save_png(grid(samples, zoom), self.folder / f"samples-{step:08d}.png")
        save_png(grid([list(stages[:, k]) for k in range(shown)], zoom), self.folder / f"stages-{step:08d}.png")

    def draw_real(self) -> None:
        """A grid of real samples with the columns of that of generated ones; white where none were found."""
        order = rows(0, 0, len(self.dataset), len(self.dataset))
        columns, height = self.config.previewed, self.config.log.preview_rows
        if self.config.sample.classes == 1:
            found = [order[i * height : (i + 1) * height] for i in range(len(columns))]
        else:
            order, y = self.labelled(order)
            found = [order[y == k][:height] for k in columns]
        if not any(len(column) for column in found):
            return
        x, _ = self.dataset.batch(np.concatenate(found), 0, 0)
        tiles = iter(to_bytes(self.visible(x.to(self.device))))
        drawn = [[next(tiles) for _ in column] for column in found]
        white = np.full_like(next(tile for column in drawn for tile in column), 255)
        filled = zip_longest(*drawn, fillvalue=white)
        save_png(grid([list(row) for row in filled], tile_zoom(len(white))), self.folder / "real.png")

    def labelled(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows in this order, or the first of them where their classes must be read, and their classes."""
        labels = np.asarray(getattr(self.dataset, "labels", ()))
        if labels.shape == order.shape and labels.dtype.kind in "iu":
            return order, labels[order]
        order = order[:LOOKED_AT]
        return order, torch.cat([self.dataset.batch(order[i : i + 1], 0, 0)[1] for i in range(len(order))]).numpy()

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
