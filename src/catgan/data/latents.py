"""Latents as moments of a VAE's posterior, drawn anew at each read; and the folder of arrays that holds them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from catgan.config import LATENT_SCALE
from catgan.draws import Purpose, normal
from catgan.errors import UserError
from catgan.system.files import digest


class Latents:
    """Moments of a VAE's posterior, memory-mapped: the latent is drawn from it anew at each read."""

    latent_scale = LATENT_SCALE

    def __init__(self, moments: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> None:
        """moments: (N, 2 * C, S, S), mean then standard deviation, unscaled; labels: (N,)."""
        self.moments, self.labels, self.class_names = moments, labels, class_names
        _, both, size, _ = moments.shape
        self.shape = (both // 2, size, size)

    def __len__(self) -> int:
        return len(self.moments)

    @cached_property
    def identity(self) -> str:
        """A digest of labels, class names and up to 1,024 evenly spread moments: all of ImageNet's are 21 GB."""
        spread = np.linspace(0, len(self) - 1, min(len(self), 1024)).astype(np.int64)
        parts = (f"{self.moments.shape} {self.moments.dtype}", str(self.class_names))
        return digest("latents", *parts, self.labels.tobytes(), self.moments[spread].tobytes())

    def batch(self, rows: np.ndarray, seed: int, step: int, first: int = 0) -> tuple[Tensor, Tensor]:
        moments = torch.from_numpy(self.moments[rows].astype(np.float32))
        return draw_posterior(moments, self.latent_scale, seed, step, first), torch.from_numpy(
            self.labels[rows].astype(np.int64)
        )


def draw_posterior(moments: Tensor, scale: float, seed: int, step: int, first: int = 0) -> Tensor:
    """scale * (mean + std * noise), (B, C, S, S), of moments (B, 2 * C, S, S), float32: new noise at each step.

    first: where these samples begin in the step's batch.
    """
    mean, std = moments.chunk(2, dim=1)
    noise = normal(seed, Purpose.POSTERIOR, step, range(first, first + len(mean)), mean.shape[1:])
    return (mean + std * noise) * scale


def open_latents(folder: Path) -> Latents:
    """moments.npy (N, 2 * C, S, S) and labels.npy (N,) of a folder; optionally classes.txt, one name a line."""
    moments, labels = (load_array(folder / name) for name in ("moments.npy", "labels.npy"))
    square = moments.ndim == 4 and moments.shape[2] == moments.shape[3]
    if not square or moments.shape[1] % 2 or labels.shape != moments.shape[:1]:
        raise UserError(
            f"{folder}: moments.npy has shape {moments.shape} and labels.npy {labels.shape}: must be (N, 2C, S, S) and (N,)"
        )
    if moments.dtype.kind != "f":
        raise UserError(f"{folder / 'moments.npy'} holds {moments.dtype}: must be floating-point numbers")
    if labels.dtype.kind not in "iu":
        raise UserError(f"{folder / 'labels.npy'} holds {labels.dtype}: must be integers")
    if len(labels) and labels.min() < 0:
        raise UserError(f"{folder / 'labels.npy'}: class {labels.min()} is negative: classes are numbered from 0")
    names = folder / "classes.txt"
    if names.exists():
        class_names = tuple(names.read_text("utf-8", "replace").splitlines())
    else:
        class_names = tuple(str(n) for n in range(int(labels.max()) + 1)) if len(labels) else ()
    if len(labels) and labels.max() >= len(class_names):
        raise UserError(
            f"{folder / 'labels.npy'}: class {labels.max()} has no name: {names} has {len(class_names)} lines"
        )
    return Latents(moments, labels, class_names)


def load_array(path: Path) -> np.ndarray:
    """Memory-map an .npy file; never unpickles."""
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path} is not a plain .npy array: {error}") from None
    return array
