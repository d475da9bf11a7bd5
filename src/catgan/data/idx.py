"""Files in the IDX format of MNIST: unsigned bytes in an array of any shape, packed with gzip or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from catgan.errors import UserError


def read_pair(folder: Path, images: str, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) and labels (N,) of the files of these names. Raises UserError if they do not belong together."""
    pixels, numbers = read_idx(folder, images, 3), read_idx(folder, labels, 1)
    if len(pixels) != len(numbers):
        raise UserError(
            f"{folder}: {len(pixels)} images but {len(numbers)} labels: the two files do not belong together"
        )
    return pixels, numbers


def read_idx(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """The array of a file, packed or not, uint8 of so many dimensions. Raises UserError if it is missing or damaged."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.exists()), None)
    if path is None:
        raise UserError(f"{folder}: no {name} or {name}.gz: choose the folder that has it")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if len(data) < 4 + 4 * dimensions or data[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(f"{path} is not an IDX file of unsigned bytes with {dimensions} dimensions")
    shape = np.frombuffer(data, ">u4", dimensions, 4).tolist()
    body = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
    if len(body) != math.prod(shape):
        raise UserError(f"{path} is damaged: it promises {'x'.join(map(str, shape))} bytes and holds {len(body)}")
    return body.reshape(shape)
