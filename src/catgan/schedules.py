"""Numbers that change over training, as functions of the step alone: a resumed or extended run sees the same ones."""

from __future__ import annotations


def geometric(start: float, end: float, over: int, step: int) -> float:
    """From `start` at step 0 to `end` at step `over` by equal factors, then `end`; over = 0 stays at `start`."""
    if over == 0:
        return start
    return end if step >= over else float(start * (end / start) ** (step / over))
