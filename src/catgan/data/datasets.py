"""What a dataset is, and opening the one that a configuration names: digits, Fashion-MNIST, latents, prepared data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from catgan.config import WITHOUT_REPRESENTATION, Config, DataConfig
from catgan.data.idx import read_pair
from catgan.data.latents import open_latents
from catgan.data.prepared import Prepared
from catgan.errors import UserError, require
from catgan.images import to_bytes
from catgan.system.files import digest
from catgan.system.packages import need
from catgan.system.progress import counted

FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


class Dataset(Protocol):
    """Samples x of shape (channels, size, size) with class numbers.

    Optional: `images(rows)`, the raw images behind the samples, uint8 RGB (B, 3, P, P) or grey (B, 1, P, P), which
    representation alignment shows to its encoder; `mirrored(count, seed, step, first)`, which samples of a batch are
    mirror images, bool (B,); `latent_scale`, what latents are multiplied by; `identity`, a digest of the content, equal
    for equal data wherever they lie: a run is resumed only on data of the same.
    """

    class_names: tuple[str, ...]
    shape: tuple[int, int, int]  # (C, S, S)

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray, seed: int, step: int, first: int = 0) -> tuple[Tensor, Tensor]:
        """Samples (B, C, S, S), float32, and classes (B,), int64, of the given rows.

        (seed, step) keys whatever is drawn anew at each read; `first` is where the rows begin in the step's batch, of
        which a process may read a part. A pure function of its arguments, called from several
        threads at once, ahead of training (`data.workers`).
        """
        ...


class Images:
    """A small dataset in memory: pixels in [-1, 1]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> None:
        """images: (N, C, S, S), float32 in [-1, 1]; labels: (N,)."""
        self.pixels = torch.from_numpy(images)
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.class_names = class_names
        _, channels, size, _ = images.shape
        self.shape = (channels, size, size)

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def identity(self) -> str:
        """A digest of pixels, labels and class names."""
        arrays = (t.numpy().tobytes() for t in (self.pixels, self.labels))
        return digest("images", str(self.shape), str(self.class_names), *arrays)

    def batch(self, rows: np.ndarray, seed: int, step: int, first: int = 0) -> tuple[Tensor, Tensor]:
        index = torch.from_numpy(rows)
        return self.pixels[index], self.labels[index]

    def images(self, rows: np.ndarray) -> Tensor:
        """uint8 (B, C, S, S)."""
        return torch.from_numpy(to_bytes(self.pixels[torch.from_numpy(rows)])).movedim(-1, 1)


def digits() -> Images:
    """The 1,797 handwritten digits that scikit-learn ships: 8x8, one channel, ten classes."""
    pixels, labels = need("sklearn.datasets", "dataset digits", "demo").load_digits(return_X_y=True)
    images = (pixels / 8 - 1).astype(np.float32).reshape(-1, 1, 8, 8)
    return Images(images, labels, tuple(str(n) for n in range(10)))


FASHION_PLACES = ("/usr/share/datasets/fashion-mnist",)  # where Debian's package dataset-fashion-mnist puts it


def fashion_folder(path: str | None) -> Path:
    """The folder of Fashion-MNIST's files: as given, from CATGAN_FASHION_MNIST, or where Debian puts it."""
    given = path or os.environ.get("CATGAN_FASHION_MNIST")
    if given:
        if not Path(given).is_dir():
            raise UserError(f"{'data.path' if path else 'CATGAN_FASHION_MNIST'} is {given}: no such folder")
        return Path(given)
    for place in map(Path, FASHION_PLACES):
        if place.is_dir():
            return place
    raise UserError(
        "data.path is not set: fashion-mnist needs the folder of its IDX files; add --data.path FOLDER, or "
        "apt-get install dataset-fashion-mnist (Debian), which is found by itself"
    )


def fashion_mnist(folder: Path, size: int, half: Literal["train", "t10k"] = "train") -> Images:
    """Fashion-MNIST from local IDX files, padded with background from 28x28 to size x size.

    half: its 60,000 training images, or the 10,000 test images ("t10k").
    """
    images, labels = read_pair(folder, f"{half}-images-idx3-ubyte", f"{half}-labels-idx1-ubyte")
    if len(labels) and labels.max() >= len(FASHION_CLASSES):
        raise UserError(
            f"{folder}: a label is {labels.max()}: Fashion-MNIST has classes 0 to {len(FASHION_CLASSES) - 1}"
        )
    if images.shape[1] != images.shape[2]:
        raise UserError(f"{folder}: images are {images.shape[1]}x{images.shape[2]}: must be square")
    missing = size - images.shape[-1]
    if missing < 0 or missing % 2:
        raise UserError(
            f"sample.size is {size}: images of {folder} have {images.shape[-1]} pixels, so use that or an even number more"
        )
    pad = missing // 2
    images = np.pad(images, ((0, 0), (pad, pad), (pad, pad)))
    return Images((images.astype(np.float32) / 127.5 - 1)[:, None], labels, FASHION_CLASSES)


def open_dataset(data: DataConfig, size: int) -> Dataset:
    """The dataset that a configuration names. Raises UserError naming the file or field that does not fit."""
    if data.source == "digits":
        return digits()
    if data.source == "fashion-mnist":
        return fashion_mnist(fashion_folder(data.path), size)
    if data.path is None:
        hint = {"latents": "a folder with moments.npy and labels.npy", "prepared": "a folder made by catgan prepare"}
        option = "--data" if data.source == "prepared" else "--data.path"
        raise UserError(f"data.path is not set: {data.source} needs {hint[data.source]}; add {option} FOLDER")
    folder = Path(data.path)
    if not folder.is_dir():
        raise UserError(f"data.path is {folder}: no such folder")
    if data.source == "prepared":
        return Prepared(folder)
    return open_latents(folder)


def data_identity(dataset: Dataset) -> str | None:
    """The dataset's `identity`; None if it has none."""
    found = getattr(dataset, "identity", None)
    return found if isinstance(found, str) else None


def known_classes(dataset: Dataset, config: Config) -> tuple[str, ...]:
    """The names of a run's classes: `all`, where it is unconditional."""
    return dataset.class_names if config.sample.classes > 1 else ("all",)


def is_data_of(dataset: Dataset, config: Config, about: Mapping[str, Any]) -> bool:
    """Whether a run was trained on this dataset, as far as its run.json tells: by identity and names of classes."""
    now = {"data": data_identity(dataset), "class_names": list(known_classes(dataset, config))}
    return all(about.get(name, found) == found for name, found in now.items())


def raw_images(dataset: Dataset, rows: np.ndarray, seed: int, step: int, first: int = 0) -> Tensor:
    """The raw images of what `batch` of the same arguments shows, mirrored where it is: uint8 RGB (B, 3, P, P).

    Raises UserError for a dataset that has none.
    """
    read = getattr(dataset, "images", None)
    if not callable(read):
        raise UserError(
            "the data has no raw images, which representation alignment shows to its encoder: prepare the data with "
            f"images, or train without: {WITHOUT_REPRESENTATION}"
        )
    images: Tensor = torch.as_tensor(read(rows)).expand(-1, 3, -1, -1)
    choose = getattr(dataset, "mirrored", None)
    if not callable(choose):
        return images
    return torch.where(choose(len(rows), seed, step, first).view(-1, 1, 1, 1), images.flip(-1), images)


def check_fits(dataset: Dataset, config: Config) -> None:
    """Raise UserError unless the dataset has the shape and the classes that the configuration is for."""
    s = config.sample
    if dataset.shape != (s.channels, s.size, s.size):
        raise UserError(
            f"the data has samples of {'x'.join(map(str, dataset.shape))}, the configuration of {s.channels}x{s.size}x{s.size}: "
            "set sample.channels, sample.size and sample.scales"
        )
    if len(dataset.class_names) > s.classes > 1:
        raise UserError(
            f"the data has {counted(len(dataset.class_names), 'class', 'classes')}, sample.classes is {s.classes}: "
            "set it to that or more, or to 1 for unconditional"
        )
    if len(dataset) == 0:
        raise UserError("the data has no samples")
    scale = getattr(dataset, "latent_scale", s.latent_scale)
    require(s.latent_scale == scale, "sample.latent_scale", s.latent_scale, f"{scale}, as in the data")
