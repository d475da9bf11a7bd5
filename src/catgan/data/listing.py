"""Pictures to be prepared, as one list of them, whatever they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from catgan.data.decode import MAX_BYTES, BrokenError

ONE_CLASS = "all"  # name of the class where there are none


@dataclass(frozen=True)
class PictureSource:
    """N pictures with a class each."""

    where: str  # as the user named it
    names: Sequence[str]  # of each picture: path in the folder or archive, or number of the row
    labels: np.ndarray  # (N,), int64
    class_names: tuple[str, ...]
    read: Callable[[int], bytes | np.ndarray]  # a file's bytes, or uint8 pixels (H, W); thread-safe
    ignored: dict[str, int] = field(default_factory=dict)  # what is there and is no picture: kind and count
    empty: tuple[str, ...] = ()  # folders without a picture

    def __len__(self) -> int:
        return len(self.names)


def too_large() -> bytes:
    raise BrokenError(f"more than {MAX_BYTES:,} bytes")
