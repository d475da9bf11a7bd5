"""Random numbers that are a pure function of what they are for.

Every draw comes from a counter-based generator (Philox) keyed by (seed, purpose) and positioned by (step or seed).
Nothing carries over from one step to the next, so a resumed run draws what an uninterrupted one would have drawn,
and a part of the batch draws its slice of the whole batch's numbers. Draws are made on the CPU in float32 on every
device.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Purpose(IntEnum):
    """What a draw is for: each purpose is an independent stream. Numbers are part of the checkpoint format.

    Those from 1000 on are free for losses and supervisions of your own.
    """

    Z = 1
    Z_GENERATOR = 2
    AUGMENT_REAL_D = 3
    AUGMENT_FAKE_D = 4
    AUGMENT_REAL_G = 5
    AUGMENT_FAKE_G = 6
    PENALTY_REAL = 7
    PENALTY_FAKE = 8
    DATA_ORDER = 9
    POSTERIOR = 10
    SAMPLE = 11
    EVALUATION_CLASSES = 12
    CLASSIFIER = 13
    MIRROR = 14


def stream(seed: int, purpose: int, position: int = 0) -> np.random.Generator:
    """The generator of one purpose at one position (a step, an epoch); streams never overlap."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, position, 0]))


def normal(seed: int, purpose: int, position: int, shape: Sequence[int]) -> Tensor:
    """Standard normal float32 numbers of the given shape, for the whole batch."""
    return torch.from_numpy(stream(seed, purpose, position).standard_normal(tuple(shape), dtype=np.float32))


def uniform(seed: int, purpose: int, position: int, shape: Sequence[int]) -> Tensor:
    """Uniform float32 numbers in [0, 1) of the given shape, for the whole batch."""
    return torch.from_numpy(stream(seed, purpose, position).random(tuple(shape), dtype=np.float32))


def sample_z(seeds: Sequence[int], z_dim: int) -> Tensor:
    """z of each seed, (len(seeds), z_dim): row i depends on seeds[i] alone."""
    rows = [stream(s, Purpose.SAMPLE).standard_normal(z_dim, dtype=np.float32) for s in seeds]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, z_dim)
