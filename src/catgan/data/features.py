"""A frozen encoder's features of prepared pictures, kept beside them: for runs that neither move nor mirror images.

One .npy per shard, float16 (rows, 1 + n^2, D), class token first; features.json says whose they are when all are there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from catgan.data.datasets import Dataset
from catgan.data.latents import load_array
from catgan.data.prepared import Prepared
from catgan.encoders.dino import DINOv2
from catgan.errors import UserError
from catgan.system.files import read_json, save_array, write_shared
from catgan.system.pieces import unfinished
from catgan.system.processes import Processes
from catgan.system.progress import Progress

FILE = "features.json"


def feature_file(folder: Path, identity: str, shard: int) -> Path:
    return folder / f"features-{identity[:8]}-{shard:05d}.npy"


def store_features(
    folder: Path, encoder: DINOv2, *, batch: int = 32, processes: Processes | None = None, quiet: bool = False
) -> bool:
    """Write the features of this process's shards that are not there yet; True if those of all are there then.

    Raises UserError if the data hold no pictures, or features of another encoder.
    """
    dataset = Prepared(folder)
    patches = encode(encoder, dataset.images(np.zeros(1, dtype=np.int64))).shape[1] - 1
    about = {"identity": encoder.identity, "size": encoder.size, "dim": encoder.dim, "grid": round(patches**0.5)}
    if (folder / FILE).exists():
        if read_json(folder / FILE) != about:
            raise UserError(
                f"{folder} has features of another encoder or size: delete {FILE} and features-*.npy in it, or prepare another DEST"
            )
        return True
    processes = processes or Processes()
    shards = range(len(dataset.starts) - 1)
    mine = unfinished(len(shards), processes, lambda k: feature_file(folder, encoder.identity, k).exists())
    rows = {k: range(int(dataset.starts[k]), int(dataset.starts[k + 1])) for k in mine}
    if not quiet:
        size = len(dataset) * (1 + patches) * encoder.dim * 2
        Progress.print(f"features take {size / 1e6:,.1f} MB ({size // max(1, len(dataset)) / 1e3:,.1f} KB a picture)")
    progress = Progress(0, sum(map(len, rows.values())), 1, "features", quiet)
    for k in mine:
        parts = []
        for start in range(rows[k].start, rows[k].stop, batch):
            chosen = np.arange(start, min(start + batch, rows[k].stop))
            parts.append(encode(encoder, dataset.images(chosen)))
            progress.advance(len(chosen))
        save_array(feature_file(folder, encoder.identity, k), np.concatenate(parts))
    progress.close()
    if not all(feature_file(folder, encoder.identity, k).exists() for k in shards):
        return False
    write_shared(folder / FILE, json.dumps(about) + "\n", processes.rank)
    return True


@torch.no_grad()
def encode(encoder: DINOv2, images: torch.Tensor) -> np.ndarray:
    """uint8 (B, 1 or 3, S, S) to float16 (B, 1 + n^2, D)."""
    cls, patches = encoder.encode(images.expand(-1, 3, -1, -1).to(next(encoder.model.parameters()).device))
    tokens = torch.cat([cls.unsqueeze(1), patches.flatten(1, 2)], dim=1)
    made: np.ndarray = tokens.half().cpu().numpy()
    return made


class StoredFeatures:
    """An encoder whose work is done: what it is given for images are the features that the data hold."""

    def __init__(self, dataset: Dataset) -> None:
        """Raises UserError for data without features, or with mirrored latents, of whose images there are none."""
        if not isinstance(dataset, Prepared) or not (dataset.folder / FILE).exists():
            raise UserError(
                "encoder.cached is true, but the data hold no features: add them with catgan prepare SOURCE DEST --encoder, or set it to false"
            )
        if dataset.meta["vae"] is not None and dataset.meta["vae"]["flip"]:
            raise UserError(
                f"encoder.cached is true, but {dataset.folder} has mirrored latents, of which there are no features: set it to false"
            )
        about: dict[str, Any] = read_json(dataset.folder / FILE)
        self.dim, self.identity, self.size, self.grid = (about[n] for n in ("dim", "identity", "size", "grid"))
        self.dataset = dataset
        shards = range(len(dataset.starts) - 1)
        self.arrays = [load_array(feature_file(dataset.folder, self.identity, k)) for k in shards]

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Features of these rows, float16 (B, 1 + n^2, D)."""
        return torch.from_numpy(np.stack([self.arrays[shard][row] for shard, row in self.dataset.places(rows)]))

    def split(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features as `read` gives them to a class token (B, D) and patch tokens (B, n, n, D), float32."""
        tokens = features.float()
        return tokens[:, 0], tokens[:, 1:].unflatten(1, (self.grid, self.grid))
