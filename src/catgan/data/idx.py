"""Files in the IDX format of MNIST: unsigned bytes in an array of any shape, packed with gzip or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from catgan.errors import UserError


def idx_path(folder: Path, name: str) -> Path:
    """The IDX file of that name in the folder, packed or not."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise UserError(f"{folder}: no {name} or {name}.gz: choose the folder that has it")


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of a file, uint8 of so many dimensions. Raises UserError if it is damaged or another kind of file."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if len(data) < 4 + 4 * dimensions or data[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(f"{path} is not an IDX file of unsigned bytes with {dimensions} dimensions")
    shape = np.frombuffer(data, ">u4", dimensions, 4).astype(int)
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
    if len(body) != shape.prod():
        raise UserError(f"{path} is damaged: it promises {'x'.join(map(str, shape))} bytes and holds {len(body)}")
    return body.reshape(shape)
