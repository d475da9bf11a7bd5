"""Writing the files of prepared data: Arrow streams with one row per picture, readable by the library datasets too.

Pixels and moments are lists of fixed length, so that a memory-mapped shard is an array without being copied.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catgan.data.decode import Picture
from catgan.data.encode import LatentEncoder
from catgan.data.prepared import HALVES
from catgan.system.files import write_atomically

if TYPE_CHECKING:
    import pyarrow as pa

TEXTS, NUMBERS = ("name", "changes"), ("width", "height")


def shard_name(shard: int, shards: int) -> str:
    return f"data-{shard:05d}-of-{shards:05d}.arrow"


class Shard:
    """Rows of one shard, gathered in memory until they are written."""

    def __init__(
        self, columns: dict[str, int], capacity: int, encoder: LatentEncoder | None, jpeg: bool = False
    ) -> None:
        """columns: `widths` of what is kept. capacity: how many rows there may be. jpeg: also keep pictures' JPEG files."""
        self.encoder = encoder
        self.files: list[bytes] | None = [] if jpeg else None
        self.arrays = {
            name: np.empty((capacity, width), np.uint8 if name == "image" else np.float16)
            for name, width in columns.items()
        }
        self.labels: list[int] = []
        self.names: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.changes: list[tuple[str, ...]] = []
        self.waiting: list[np.ndarray] = []  # pixels for the VAE

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, name: str, label: int, picture: Picture) -> None:
        if "image" in self.arrays:
            self.arrays["image"][len(self)] = picture.pixels.reshape(-1)
        if self.files is not None:
            self.files.append(picture.jpeg)
        self.labels.append(label)
        self.names.append(name)
        self.sizes.append((picture.width, picture.height))
        self.changes.append(picture.changes)
        if self.encoder is not None:
            self.waiting.append(picture.pixels)
            if len(self.waiting) == self.encoder.batch:
                self.encode()

    def encode(self) -> None:
        """Give what waits to the VAE: batches begin anew in each shard, so that they are the same for any process."""
        if self.encoder is None or not self.waiting:
            return
        start = len(self) - len(self.waiting)
        for name, moments in zip(HALVES, self.encoder.moments(np.stack(self.waiting)), strict=False):
            self.arrays[name][start : len(self)] = moments.reshape(len(moments), -1)
        self.waiting = []

    def counts(self) -> dict[str, dict[Any, int]]:
        return {"labels": Counter(self.labels), "changes": Counter(c for row in self.changes for c in row)}

    def write(self, path: Path, class_names: Sequence[str]) -> None:
        """Write the shard as a whole or not at all."""
        import pyarrow as pa

        self.encode()
        columns: dict[str, pa.Array] = {"label": pa.array(self.labels, pa.int64())}
        for name, array in self.arrays.items():
            flat = pa.array(array[: len(self)].reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
        if self.files is not None:
            columns["image"] = pa.array(self.files, pa.binary())
        columns["name"] = pa.array(self.names, pa.string())
        columns["changes"] = pa.array([", ".join(c) for c in self.changes], pa.string())
        for k, name in enumerate(NUMBERS):
            columns[name] = pa.array([size[k] for size in self.sizes], pa.int32())
        widths = {name: array.shape[1] for name, array in self.arrays.items()}
        said = features(widths, class_names, self.files is not None)
        batch = pa.record_batch(columns).replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": said}})}
        )

        def fill(aside: Path) -> None:
            with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_stream(sink, batch.schema) as stream:
                stream.write_batch(batch)

        write_atomically(path, fill)


def features(columns: dict[str, int], class_names: Sequence[str], jpeg: bool) -> dict[str, Any]:
    """The columns as the library datasets describes them. jpeg: whether pictures are JPEG files."""

    def value(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "_type": "Value"}

    result: dict[str, Any] = {"label": {"names": list(class_names), "_type": "ClassLabel"}}
    for name, width in columns.items():
        number = value("uint8" if name == "image" else "float16")
        result[name] = {"feature": number, "length": width, "_type": "Sequence"}
    if jpeg:
        result["image"] = value("binary")
    return result | {name: value("string") for name in TEXTS} | {name: value("int32") for name in NUMBERS}


def dataset_files(
    columns: dict[str, int], class_names: Sequence[str], names: Sequence[str], jpeg: bool = False
) -> dict[str, Any]:
    """What `datasets.load_from_disk` wants to find beside the shards of these names."""
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0" * 16,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    return {"dataset_info.json": {"features": features(columns, class_names, jpeg)}, "state.json": state}
