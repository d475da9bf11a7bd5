"""A small frozen network for data that no pretrained one knows: it learns to tell by how much pictures are turned.

No labels are needed (Gidaris et al., arXiv:1803.07728). A ConvNeXtV2 of 0.2 M weights, minutes on one core.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catgan.config import Config
from catgan.draws import Purpose, stream
from catgan.encoders.vision import PREPROCESSOR
from catgan.images import from_bytes
from catgan.nn.fitting import fit
from catgan.pyramid import resize
from catgan.system.files import write_text
from catgan.system.packages import need
from catgan.system.progress import Progress

ROTATIONS = "rotations"  # the value of vision.path that asks for it
PRETRAINED_SIZE = 224  # pixels at which other networks see pictures
DEPTHS, WIDTHS = (1, 1, 1, 1), (16, 32, 64, 128)
GRID = 16  # positions along a side of the first stage's map; the others have 8, 4 and 2
BATCH, IMAGES = 128, 80_000
LEARNING_RATE = 4e-3
ACCURACY = "accuracy.json"
VERSION = 2  # of network and training: raise it when either changes


def fitting_size(size: int) -> int:
    """Pixels at which such a network sees samples of that size: the next multiple of 16."""
    return -(-size // GRID) * GRID


def seen_size(config: Config) -> int:
    """Pixels at which the network that config.vision names sees pictures."""
    size = config.vision.size
    return fitting_size(size or config.sample.size) if config.vision.path == ROTATIONS else size or PRETRAINED_SIZE


def train_rotations(
    read: Callable[[Any], Tensor], count: int, size: int, device: torch.device, quiet: bool = False
) -> tuple[nn.Module, float]:
    """A ConvNextV2Model for pictures of `size` pixels, a multiple of 16, and the share of held-out turns that it knows.

    read: rows (an array of numbers below `count`) to pictures, uint8 (n, 1 or 3, S, S).
    """
    need("transformers", "vision.path rotations", "encoders")
    from transformers import ConvNextV2Config, ConvNextV2Model
    from transformers.utils import logging

    logging.disable_progress_bar()

    order = stream(0, Purpose.ROTATIONS).permutation(count)
    held = order[: max(1, min(2000, count // 10))]
    rows = order[len(held) :]
    config = ConvNextV2Config(
        num_channels=3, image_size=size, patch_size=size // GRID, depths=list(DEPTHS), hidden_sizes=list(WIDTHS)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: Any = ConvNextV2Model(config).to(device).train()
        head = nn.Linear(WIDTHS[-1], 4).to(device)
    steps = -(-IMAGES // BATCH)

    def turns(images: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Pictures, each turned by a multiple of 90 degrees, and which."""
        x = resize(from_bytes(images).expand(-1, 3, -1, -1), size, "bicubic", "bicubic")
        y = torch.from_numpy(stream(0, Purpose.ROTATIONS, number).integers(0, 4, len(x)))
        return torch.stack([torch.rot90(p, int(k), (1, 2)) for p, k in zip(x, y, strict=True)]).to(device), y.to(device)

    def logits(x: Tensor) -> Tensor:
        scores: Tensor = head(network(pixel_values=x).pooler_output)
        return scores

    def loss(step: int) -> Tensor:
        chosen = rows[stream(0, Purpose.ROTATIONS, steps + step).integers(0, len(rows), BATCH)]
        x, y = turns(read(chosen), 1 + step)
        return F.cross_entropy(logits(x), y)

    progress = Progress(0, steps, BATCH, ROTATIONS, quiet)
    fit([*network.parameters(), *head.parameters()], loss, steps, LEARNING_RATE, 0.05, progress)
    network.eval()
    with torch.no_grad():
        right = 0
        for start in range(0, len(held), 500):
            x, y = turns(read(held[start : start + 500]), 3 * steps + start)
            right += int((logits(x).argmax(1) == y).sum())
    return network, right / len(held)


def save_rotations(network: nn.Module, accuracy: float, folder: Path) -> None:
    """Put the network into a folder from which `load_vision` reads it, with the normalisation that it was trained with."""
    network.cpu().save_pretrained(folder)  # type: ignore[operator]
    own = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    for name, values in ((PREPROCESSOR, own), (ACCURACY, {"held_out_turns": accuracy})):
        write_text(folder / name, json.dumps(values))
