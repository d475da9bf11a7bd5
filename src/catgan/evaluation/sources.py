"""What an evaluation looks at: a generator's samples, a dataset, an .npz or a folder of images, all read the same way."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from catgan.data import Dataset
from catgan.data.decode import FORMATS, GREY_MODES, PICTURE_SUFFIXES
from catgan.data.prepared import Prepared
from catgan.draws import Purpose, stream
from catgan.errors import UserError
from catgan.images import Rounding
from catgan.sampling.pipeline import CATPipeline
from catgan.system.files import digest, sha256

DAMAGE = (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error)
# What Pillow raises for a file that it cannot decode.
UNREADABLE = (OSError, EOFError, ValueError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError)


class ImageSource(Protocol):
    """Images by number. `read` is called with any ranges in any order, by one process or several."""

    name: str  # for people
    channels: int  # 1 or 3
    class_names: tuple[str, ...]  # empty where images have no classes
    broken: list[str]  # files that could not be read so far

    def __len__(self) -> int: ...

    def identity(self) -> str:
        """A digest of the content: equal for equal images."""
        ...

    def read(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Images start..stop - 1, uint8 (n, C, H, W), and their classes (n,), int64. Broken files are left out."""
        ...


class Generated:
    """Samples of a generator: image i has seed first_seed + i, and a class that depends on i alone."""

    def __init__(
        self,
        pipe: CATPipeline,
        count: int,
        sampling: str = "uniform",
        first_seed: int = 0,
        psi: float = 1.0,
        rounding: Rounding = "round",
    ) -> None:
        """sampling: "balanced" takes the classes in turn, "uniform" draws them uniformly at random."""
        self.pipe, self.count, self.sampling, self.first_seed, self.psi = pipe, count, sampling, first_seed, psi
        self.rounding: Rounding = rounding
        folder = pipe.run or pipe.source
        self.name = f"{folder.name if folder else pipe.config.recipe}, step {pipe.step}"
        self.channels = pipe([0], [first_seed]).array.shape[-1]  # latents without their VAE raise here, before any work
        self.class_names = pipe.class_names if pipe.config.sample.classes > 1 else ()
        self.broken: list[str] = []

    def __len__(self) -> int:
        return self.count

    def identity(self) -> str:
        vae = self.pipe.vae and self.pipe.vae.identity
        drawn: tuple[Any, ...] = (self.count, self.sampling, self.first_seed, self.psi, self.pipe.precision, vae)
        drawn += () if self.rounding == "round" else (self.rounding,)
        return digest("generated", self.pipe.fingerprint(), str(drawn))

    @cached_property
    def classes(self) -> np.ndarray:
        number = max(1, len(self.class_names))  # a generator may have room for more classes than it was trained on
        if self.sampling == "balanced":
            return np.arange(self.count) % number
        return stream(self.first_seed, Purpose.EVALUATION_CLASSES).integers(number, size=self.count)

    def read(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        y = self.classes[start:stop]
        seeds = range(self.first_seed + start, self.first_seed + stop)
        made = self.pipe(y.tolist(), seeds, psi=self.psi, batch_size=max(1, stop - start))
        pixels = made.as_bytes(self.rounding)
        return channels_first(pixels), torch.from_numpy(y.astype(np.int64)) if self.class_names else None


class DatasetImages:
    """The images of a dataset: of any `catgan.data.Dataset` that has `images(rows)`."""

    def __init__(self, dataset: Dataset, name: str, rows: np.ndarray | None = None) -> None:
        """rows: some of them only, in this order. Raises UserError for a dataset that has no images."""
        self.dataset, self.name = dataset, name
        self.rows = np.arange(len(dataset)) if rows is None else rows
        self.class_names = dataset.class_names if len(dataset.class_names) > 1 else ()
        self.broken: list[str] = []
        if not callable(getattr(dataset, "images", None)):
            raise UserError(f"the data ({name}) are no images: give images or statistics as the reference")
        self.channels = self.images(self.rows[:1]).shape[1]
        if self.channels not in (1, 3):
            raise UserError(f"{name} has {self.channels} channels: only grey and RGB images can be evaluated")

    def __len__(self) -> int:
        return len(self.rows)

    def images(self, rows: np.ndarray) -> Tensor:
        """uint8 (n, C, H, W), contiguous."""
        found = torch.as_tensor(self.dataset.images(rows))  # type: ignore[attr-defined]
        return torch.from_numpy(np.array(found.numpy(), order="C"))

    def labels(self, rows: np.ndarray) -> Tensor:
        """Classes (n,), int64."""
        known = getattr(self.dataset, "labels", None)  # else a whole batch is read for its classes
        return self.dataset.batch(rows, 0, 0)[1] if known is None else torch.as_tensor(known[rows]).long()

    @cached_property
    def _identity(self) -> str:
        data = self.dataset
        known = not isinstance(data, Prepared) or "digests" in data.meta  # else its identity says too little
        own = getattr(data, "identity", None)
        if known and isinstance(own, str) and np.array_equal(self.rows, np.arange(len(data))):
            return digest("dataset", own)
        joined = digest("images", str(self.class_names))
        for start in range(0, len(self), 1024):
            rows = self.rows[start : start + 1024]
            images = self.images(rows)
            joined = digest(joined, str(images.shape), images.numpy().tobytes(), self.labels(rows).numpy().tobytes())
        return joined

    def identity(self) -> str:
        return self._identity

    def read(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        rows = self.rows[start:stop]
        return self.images(rows), self.labels(rows) if self.class_names else None


class Npz:
    """arr_0, uint8 (N, H, W, C), and optionally arr_1, classes (N,), of an .npz: read in pieces, never as a whole."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.broken: list[str] = []
        try:
            self.archive = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise UserError(f"{path} is no .npz file: {error}") from None
        if "arr_0.npy" not in self.archive.namelist():
            raise UserError(f"{path} has no arr_0: must hold uint8 images (N, H, W, C) under that name")
        with self.named_if_damaged():
            self.file = self.archive.open("arr_0.npy")
            self.shape, dtype = npy_header(self.file, path)
            self.begin = self.file.tell()
            if dtype != np.uint8 or len(self.shape) != 4 or self.shape[-1] not in (1, 3):
                raise UserError(f"{path}: arr_0 is {dtype} {self.shape}: must be uint8 (N, H, W, 1 or 3)")
            held = self.archive.getinfo("arr_0.npy").file_size - self.begin
            if held != math.prod(self.shape):
                raise UserError(f"{path} is damaged: arr_0 promises {math.prod(self.shape)} bytes and holds {held}")
            self.labels = self.read_labels()
        self.channels = self.shape[-1]
        known = () if self.labels is None else range(int(self.labels.max(initial=0)) + 1)
        self.class_names = tuple(str(k) for k in known)

    @contextmanager
    def named_if_damaged(self) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            raise UserError(f"{self.path} is damaged: {error}") from None

    def read_labels(self) -> np.ndarray | None:
        if "arr_1.npy" not in self.archive.namelist():
            return None
        # Opened by itself: streams of one archive share a place in the file, which Python 3.12 and 3.13 take for a stream's own.
        with zipfile.ZipFile(self.path) as archive, archive.open("arr_1.npy") as file:
            shape, dtype = npy_header(file, self.path)
            if dtype.kind not in "iu" or shape != self.shape[:1]:
                return None
            labels = np.frombuffer(file.read(), dtype).astype(np.int64)
        if labels.min(initial=0) < 0:
            raise UserError(f"{self.path}: arr_1 has class {labels.min()}: classes are numbered from 0")
        return labels

    def __len__(self) -> int:
        return int(self.shape[0])

    def identity(self) -> str:
        members = sorted((i.filename, i.file_size, i.CRC) for i in self.archive.infolist())
        return digest("npz", str([m for m in members if m[0] in ("arr_0.npy", "arr_1.npy")]))

    def read(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        size = math.prod(self.shape[1:])
        with self.named_if_damaged():
            # The one stream stays open: it can only seek by reading, from its place onwards or from its beginning.
            self.file.seek(self.begin + start * size)
            data = self.file.read((stop - start) * size)
        pixels = np.frombuffer(data, np.uint8).reshape(-1, *self.shape[1:])
        labels = None if self.labels is None else torch.from_numpy(self.labels[start:stop])
        return channels_first(pixels), labels


class Folder:
    """Image files of a folder, in the order of their names; folders inside it are classes."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self.files = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file())
        if not self.files:
            raise UserError(
                f"{path} has no images ({', '.join(PICTURE_SUFFIXES)}): give a folder that has, or an .npz file"
            )
        self.broken: list[str] = []
        folders = sorted({p.relative_to(path).parts[0] for p in self.files if p.parent != path})
        flat = any(p.parent == path for p in self.files)
        self.class_names = () if flat else tuple(folders)
        self.channels, self.size = self.first()

    def __len__(self) -> int:
        return len(self.files)

    def first(self) -> tuple[int, tuple[int, int]]:
        """Channels and size of the first image that can be read."""
        for path in self.files:
            try:
                with Image.open(path, formats=FORMATS) as picture:
                    return (1 if picture.mode in GREY_MODES else 3), picture.size
            except UNREADABLE:
                continue
        raise UserError(f"{self.path}: none of its {len(self.files)} images can be read")

    @cached_property
    def _identity(self) -> str:
        return digest("folder", "\n".join(f"{path.relative_to(self.path)} {sha256(path)}" for path in self.files))

    def identity(self) -> str:
        return self._identity

    def read(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        pixels, labels = [], []
        for path in self.files[start:stop]:
            array = self.read_file(path)
            if array is not None:
                pixels.append(array)
                labels.append(self.class_names.index(path.relative_to(self.path).parts[0]) if self.class_names else 0)
        width, height = self.size
        stacked = np.stack(pixels) if pixels else np.empty((0, height, width, self.channels), np.uint8)
        return channels_first(stacked), torch.tensor(labels, dtype=torch.int64) if self.class_names else None

    def read_file(self, path: Path) -> np.ndarray | None:
        """uint8 (H, W, C); None, and a note in `broken`, for a file that cannot be decoded."""
        try:
            with Image.open(path, formats=FORMATS) as opened:
                if opened.mode[0] in "IF":
                    raise UserError(f"{path} has more than 8 bits per pixel: convert the images to 8 bits")
                if self.channels == 1 and opened.mode not in GREY_MODES:
                    raise UserError(f"{path} is a colour image, those before it are grey: convert them to one mode")
                picture = opened.convert("L" if self.channels == 1 else "RGB")
        except UNREADABLE as error:
            self.broken.append(f"{path.relative_to(self.path)}: {error}")
            return None
        size = picture.size
        if size != self.size:
            raise UserError(
                f"{path} has {size[0]}x{size[1]} pixels, the first image {self.size[0]}x{self.size[1]}: "
                "all images must have one size; crop or resize them first"
            )
        return np.asarray(picture).reshape(size[1], size[0], self.channels)


def npy_header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an .npy stream in C order, which is left at its data."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if fortran or dtype.hasobject:
        raise UserError(f"{path}: its arrays must be plain numbers in C order")
    return shape, dtype


def channels_first(pixels: np.ndarray) -> Tensor:
    """(n, H, W, C) to a tensor (n, C, H, W)."""
    return torch.from_numpy(np.array(pixels.transpose(0, 3, 1, 2), order="C"))


def with_channels(images: Tensor, channels: int, name: str) -> Tensor:
    """Grey images as RGB where that is wanted; the other way round is an error."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    raise UserError(f"{name} has colour images, the reference grey ones: use images of one kind")
