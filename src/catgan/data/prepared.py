"""The data that `catgan prepare` made: memory-mapped shards of pictures, or of a VAE's moments."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from catgan.data.decode import BrokenError, from_jpeg
from catgan.data.latents import draw_posterior
from catgan.draws import Purpose, uniform
from catgan.errors import UserError, brief
from catgan.system.files import count, digest, is_plain_name, read_object, texts
from catgan.system.packages import need

FORMAT, FORMAT_JPEG = 1, 2  # the latter where pictures are JPEG files
HALVES = ("moments", "moments_mirrored")


def widths(size: int, channels: int, images: bool, vae: dict[str, Any] | None) -> dict[str, int]:
    """Numbers per row of each column that is an array: image (S, S, C), moments (2C, s, s)."""
    result = {"image": size * size * channels} if images else {}
    if vae is not None:
        for name in HALVES[: 1 + vae["flip"]]:
            result[name] = 2 * vae["channels"] * vae["size"] ** 2
    return result


def arrow() -> Any:
    """The package pyarrow. Raises UserError where it is missing."""
    return need("pyarrow", "prepared data", "data")


def read_meta(folder: Path) -> dict[str, Any]:
    """What catgan.json says. Raises UserError if the folder is no prepared data, or not all of it."""
    path = folder / "catgan.json"
    if not path.exists():
        if (folder / "work").is_dir():
            raise UserError(f"{folder} is not finished: call catgan prepare with the same source and options again")
        raise UserError(f"{folder} is no prepared data (it has no catgan.json): make it with catgan prepare")
    meta: dict[str, Any] = read_object(path)
    if meta.get("format") not in (FORMAT, FORMAT_JPEG):
        raise UserError(
            f"{path} has format {brief(meta.get('format'))}: this catgan reads {FORMAT} and {FORMAT_JPEG}; prepare the data again"
        )
    try:
        check_meta(meta)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r:.100}): copy it again") from None
    return meta


def check_meta(meta: dict[str, Any]) -> None:
    """Raise ValueError, KeyError, TypeError or AttributeError for what `prepare` would not write."""
    vae, shards = meta["vae"], meta["shards"]
    for space in (meta, *(() if vae is None else (vae,))):
        if not count(space["size"]) or not count(space["channels"]):
            raise ValueError("a size is 0")
    if vae is not None:
        float(vae["scale"]), str(vae["identity"]), bool(vae["flip"])
    if not texts(meta["classes"]) or not shards or not isinstance(meta["images"], bool):
        raise ValueError("classes, shards or images are missing")
    if any(not is_plain_name(s["file"]) or count(s["rows"]) + count(s["bytes"]) < 0 for s in shards):
        raise ValueError("a shard is outside of the folder")
    digests = meta.get("digests")
    if digests is not None and not all(isinstance(digests.get(s["file"]), str) for s in shards):
        raise ValueError("digests are missing")


def sample_shape(meta: dict[str, Any]) -> tuple[int, int, int]:
    """(C, S, S) of what networks are trained on: latents where there are moments, else pixels."""
    space = meta["vae"] or meta
    return space["channels"], space["size"], space["size"]


class Prepared:
    """A dataset (`catgan.data.Dataset`) from a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError for a folder or shard that is damaged."""
        self.folder, self.meta = folder, read_meta(folder)
        self.class_names: tuple[str, ...] = tuple(self.meta["classes"])
        self.shape = sample_shape(self.meta)
        if self.meta["vae"] is not None:
            self.latent_scale = float(self.meta["vae"]["scale"])
        self.jpeg = self.meta.get("jpeg") is not None
        size, channels, images, vae = (self.meta[name] for name in ("size", "channels", "images", "vae"))
        self.columns = widths(size, channels, images and not self.jpeg, vae)
        shards = [self.open_shard(entry) for entry in self.meta["shards"]]
        self.arrays = {name: [shard[name] for shard in shards] for name in self.columns}
        self.files = [(shard["offsets"], shard["files"]) for shard in shards if self.jpeg]
        self.labels = np.concatenate([shard["label"] for shard in shards])
        self.originals = np.stack([np.concatenate([s[name] for s in shards]) for name in ("width", "height")], axis=1)
        self.starts = np.cumsum([0] + [entry["rows"] for entry in self.meta["shards"]])

    def open_shard(self, entry: dict[str, Any]) -> dict[str, np.ndarray]:
        """The array columns (rows, width), labels and sizes (rows,), and where there are JPEG files their bytes, one after
        the other, with the offset of each, of a shard: views of the mapped file."""
        pa = arrow()
        path = self.folder / entry["file"]
        try:
            size = path.stat().st_size
            if size != entry["bytes"]:
                raise UserError(f"{path} is damaged: it has {size:,} bytes, not {entry['bytes']:,}; copy it again")
            # Not pyarrow's own memory map: that keeps each file open, and there may be more shards than may be open.
            mapped = np.memmap(path, mode="r")
            batch = pa.ipc.open_stream(pa.py_buffer(mapped)).read_next_batch()
            found = {
                name: batch.column(name).flatten().to_numpy().reshape(entry["rows"], width)
                for name, width in self.columns.items()
            }
            if self.jpeg:
                _, offsets, files = batch.column("image").buffers()
                found |= {"offsets": np.frombuffer(offsets, np.int32), "files": np.frombuffer(files, np.uint8)}
            found |= {name: batch.column(name).to_numpy() for name in ("label", "width", "height")}
            if batch.num_rows != entry["rows"] or not set(found["label"].tolist()) <= set(range(len(self.class_names))):
                raise ValueError("its rows or classes are not those of catgan.json")
            return found
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from None
        except (pa.ArrowException, KeyError, ValueError, TypeError, AttributeError, StopIteration) as error:
            raise UserError(f"{path} is damaged: {error}") from None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def identity(self) -> str:
        """A digest of class names and of the shards' digests; where none were stored, of their lengths and labels, and
        of the names in the source."""
        digests = self.meta.get("digests")
        if digests is None:
            said = {name: self.meta[name] for name in ("listing", "size", "crop", "images", "vae", "shards")}
            return digest("prepared", str(self.class_names), str(said), self.labels.tobytes())
        return digest("prepared", str(self.class_names), *(digests[entry["file"]] for entry in self.meta["shards"]))

    def places(self, rows: np.ndarray) -> Iterable[tuple[int, int]]:
        """The shard of each row, and its number in it."""
        shards = np.searchsorted(self.starts, rows, "right") - 1
        return zip(shards.tolist(), (rows - self.starts[shards]).tolist(), strict=True)

    def gather(self, column: str, rows: np.ndarray) -> np.ndarray:
        """Rows of a column, (B, width), copied out of the mapped shards."""
        arrays = self.arrays[column]
        made = np.empty((len(rows), self.columns[column]), arrays[0].dtype)
        for i, (shard, row) in enumerate(self.places(rows)):
            made[i] = arrays[shard][row]
        return made

    def decoded(self, rows: np.ndarray, size: int, channels: int) -> np.ndarray:
        """The pictures of JPEG files, (B, size, size, channels). Raises UserError for a damaged one."""
        made = np.empty((len(rows), size, size, channels), np.uint8)
        for i, (shard, row) in enumerate(self.places(rows)):
            offsets, files = self.files[shard]
            try:
                made[i] = from_jpeg(files[offsets[row] : offsets[row + 1]].data, size, channels)
            except BrokenError as error:
                file = self.folder / self.meta["shards"][shard]["file"]
                raise UserError(f"{file} is damaged: row {row} is no picture ({error}); copy it again") from None
        return made

    def images(self, rows: np.ndarray) -> Tensor:
        """The stored pictures, uint8 (B, 3 or 1, S, S). Raises UserError if none are stored."""
        return self.pixels(rows).contiguous()

    def pixels(self, rows: np.ndarray) -> Tensor:
        """`images`, still in the order (B, S, S, C) in memory."""
        if not self.meta["images"]:
            raise UserError(f"{self.folder} holds no pictures, only latents: prepare it without --no-images")
        size, channels = self.meta["size"], self.meta["channels"]
        if self.jpeg:
            return torch.from_numpy(self.decoded(rows, size, channels)).movedim(-1, 1)
        return torch.from_numpy(self.gather("image", rows).reshape(-1, size, size, channels)).movedim(-1, 1)

    def mirrored(self, count: int, seed: int, step: int, first: int = 0) -> Tensor:
        """Which samples of a batch are drawn as mirror images, (count,), bool: each with probability 1/2, if stored."""
        if self.meta["vae"] is None or not self.meta["vae"]["flip"]:
            return torch.zeros(count, dtype=torch.bool)
        return uniform(seed, Purpose.MIRROR, step, range(first, first + count), ()) < 0.5

    def batch(self, rows: np.ndarray, seed: int, step: int, first: int = 0) -> tuple[Tensor, Tensor]:
        """Pixels in [-1, 1], or latents drawn anew from their posteriors; float32 (B, C, S, S), and classes (B,)."""
        y = torch.from_numpy(self.labels[rows])
        if self.meta["vae"] is None:
            # In place, because for large pictures more time goes into fresh memory than into arithmetic.
            x = self.pixels(rows).to(torch.float32, memory_format=torch.contiguous_format)
            return x.div_(127.5).sub_(1), y
        mirrored = self.mirrored(len(rows), seed, step, first).numpy()
        moments = np.empty((len(rows), self.columns["moments"]), np.float16)
        for name, chosen in zip(HALVES, (~mirrored, mirrored), strict=True):
            if chosen.any():
                moments[chosen] = self.gather(name, rows[chosen])
        channels, size, _ = self.shape
        both = torch.from_numpy(moments.reshape(-1, 2 * channels, size, size)).float()
        return draw_posterior(both, self.latent_scale, seed, step, first), y
