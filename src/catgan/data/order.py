"""The order of training samples: a pure function of (seed, global sample number)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from catgan.draws import Purpose, stream


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of one epoch: every row once."""
    order: np.ndarray = stream(seed, Purpose.DATA_ORDER, epoch).permutation(size)
    return order


def rows(seed: int, start: int, count: int, size: int) -> np.ndarray:
    """Row numbers of the global samples start .. start + count - 1 of a run over a dataset of `size` rows."""
    numbers = np.arange(start, start + count)
    result = np.empty(count, dtype=np.int64)
    for epoch in np.unique(numbers // size):
        mine = numbers // size == epoch
        result[mine] = permutation(seed, int(epoch), size)[numbers[mine] % size]
    return result
