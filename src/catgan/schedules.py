"""Numbers that change over training, as functions of the step alone: a resumed or extended run sees the same ones."""

from __future__ import annotations

import math


def rate(warmup: int, decay: int, step: int) -> float:
    """Factor of the learning rates at a step (0, 1, ...): rising over `warmup` steps, falling as 1 / sqrt after `decay`.

    0 is off for either.
    """
    risen = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return risen * math.sqrt(decay / max(step, decay)) if decay else risen


def geometric(start: float, end: float, over: int, step: int) -> float:
    """From `start` at step 0 to `end` at step `over` by equal factors, then `end`; over = 0 stays at `start`."""
    if over == 0:
        return start
    return end if step >= over else float(start * (end / start) ** (step / over))
