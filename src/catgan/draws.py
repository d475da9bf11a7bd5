"""Random numbers that are a pure function of what they are for.

What a step draws for a sample is a function of (seed, purpose, step, number of the sample in the batch): a process, and
a micro-batch, draw the numbers of their own samples alone, a resumed run draws what an uninterrupted one would have, and
the bits are the same on every device. They come from Philox 4x32-10 (Salmon et al., 2011), a function of a counter,
in integer arithmetic; a normal number is looked up in a table of quantiles, as logarithms differ between machines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from catgan.system.devices import kept, moved


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
    LEVELS_REAL_D = 15
    LEVELS_FAKE_D = 16
    LEVELS_REAL_G = 17
    LEVELS_FAKE_G = 18
    ROTATIONS = 19


def uniform(
    seed: int,
    purpose: int,
    step: int | Tensor,
    samples: Sequence[int],
    shape: Sequence[int],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2^-24: float32 (n, *shape) for these samples of a step's batch.

    step: its number, or on the device a tensor () of int64 with it, as a recorded step has it (`training/graph.py`).
    """
    bits = words(seed, purpose, step, samples, shape, device)
    return moved(bits.bitwise_right_shift(8).float().mul(2.0**-24), device)


def normal(
    seed: int,
    purpose: int,
    step: int | Tensor,
    samples: Sequence[int],
    shape: Sequence[int],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal numbers within +-6.3: float32 (n, *shape) for these samples of a step's batch. step: as above."""
    bits = words(seed, purpose, step, samples, shape, device)
    # 31 bits are p in (0, 1/2); its power of two and the next 8 bits find a piece of the quantile function, the rest a
    # place in it. The last bit is the sign.
    mantissa, exponent = torch.frexp((bits >> 1).double() + 0.5)
    place = (mantissa - 0.5) * (2 * PIECES)
    piece = place.long()
    start, slope = (table[exponent.long() * PIECES + piece] for table in quantiles(bits.device))
    return moved((start + (place - piece).float() * slope) * (1 - 2 * (bits & 1)), device)


# -- the counter-based generator -------------------------------------------------------------------------------------

MASK = 0xFFFFFFFF
MULTIPLIERS, KEY_STEPS = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
PIECES = 256  # of the quantile function between a power of two and the next
ON_DEVICE = 2**16  # as many numbers are drawn faster where they are wanted than moved there

Words = TypeVar("Words", Tensor, np.ndarray)


def words(
    seed: int,
    purpose: int,
    step: int | Tensor,
    samples: Sequence[int],
    shape: Sequence[int],
    device: torch.device | str,
) -> Tensor:
    """Independent 32-bit numbers, as int64 (n, *shape): on the device if they are many or it has the step, else on the CPU."""
    count, device = math.prod(shape), torch.device(device)
    blocks, key = -(-count // 4), (seed & MASK, seed >> 32)
    if not isinstance(step, Tensor) and in_numpy(device, len(samples) * count):
        rows = np.arange(blocks)[None], np.asarray(samples, np.int64)[:, None]
        number = np.full((1, 1), step)
        made = philox([*rows, number & MASK, purpose << 16 | number >> 32], key)
        four = [torch.from_numpy(word) for word in made]
    else:  # without a copy from the CPU, which would be no part of a recording
        numbers = torch.arange(blocks, device=device)[None], kept(tuple(samples), device)[:, None]
        at = step if isinstance(step, Tensor) else torch.full((), step, device=device)
        four = philox([*numbers, at & MASK, purpose << 16 | at >> 32], key)
    found = torch.stack(torch.broadcast_tensors(*four), dim=-1)
    return found.flatten(1)[:, :count].reshape(len(samples), *shape)


def in_numpy(device: torch.device, count: int) -> bool:
    """Whether so many numbers are drawn by NumPy, in a third of PyTorch's time on a CPU, and moved when they are made."""
    return device.type == "cpu" or count < ON_DEVICE


def philox(counter: Sequence[Words], key: tuple[int, int]) -> list[Words]:
    """Philox 4x32-10: four words of each counter of four words, all in int64 arrays that broadcast."""
    a, b, c, d = counter
    for _ in range(10):
        first, second = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b, c, d = (second >> 32) & MASK ^ b ^ key[0], second & MASK, (first >> 32) & MASK ^ d ^ key[1], first & MASK
        key = (key[0] + KEY_STEPS[0]) & MASK, (key[1] + KEY_STEPS[1]) & MASK
    return [a, b, c, d]


@cache
def quantiles(device: torch.device) -> tuple[Tensor, Tensor]:
    """Values at the start of each piece of the normal quantile function below 1/2, and how much it rises in the piece.

    Computed on the CPU for every device.
    """
    p = 2.0 ** torch.arange(-33, -1, dtype=torch.float64)[:, None] * (1 + torch.arange(PIECES + 1) / PIECES)
    values = torch.special.ndtri(p.clamp(max=0.5)).float()
    return values[:, :-1].flatten().to(device), values.diff(dim=1).flatten().to(device)


# -- numbers of no step ----------------------------------------------------------------------------------------------


def stream(seed: int, purpose: int, position: int = 0) -> np.random.Generator:
    """NumPy's generator of one purpose at one position (an epoch); streams never overlap."""
    return np.random.Generator(np.random.Philox(key=[seed, purpose], counter=[0, 0, position, 0]))


def sample_z(seeds: Sequence[int], z_dim: int) -> Tensor:
    """z of each seed, (len(seeds), z_dim): row i depends on seeds[i] alone."""
    rows = [stream(s, Purpose.SAMPLE).standard_normal(z_dim, dtype=np.float32) for s in seeds]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, z_dim)
