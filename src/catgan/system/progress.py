"""Where a long operation is, and when it will be done."""

from __future__ import annotations

import math
import sys
import time


class Progress:
    """One line about where the run is: rewritten in place on a terminal, every ten seconds elsewhere; never if quiet."""

    def __init__(self, start: int, total: int, batch: int, unit: str = "step", quiet: bool = False) -> None:
        self.total, self.batch, self.unit, self.quiet, self.done = total, batch, unit, quiet, start
        self.began = self.shown = self.marked = time.monotonic()
        self.marked_step = start
        self.rate = 0.0  # images per second, smoothed
        self.live = sys.stderr.isatty() and not quiet

    def advance(self, count: int) -> None:
        """So many more are done."""
        self.update(self.done + count)

    def update(self, step: int, text: str = "") -> None:
        self.done, now = step, time.monotonic()
        if self.quiet or (now - self.shown < (0.2 if self.live else 10.0) and step != self.total):
            return
        if step > self.marked_step:
            rate = (step - self.marked_step) * self.batch / max(now - self.marked, 1e-9)
            self.rate = rate if self.rate == 0 else 0.7 * self.rate + 0.3 * rate
        self.shown = self.marked = now
        self.marked_step = step
        left = (self.total - step) * self.batch / self.rate if self.rate else math.nan
        line = (
            f"{self.unit} {step}/{self.total} ({step / self.total:.0%})  {self.rate:.0f} images/s  "
            f"elapsed {clock(now - self.began)}  left {clock(left)}  {text}"
        )
        self.print(f"\r\033[K{line}" if self.live else line, end="" if self.live else "\n")

    def note(self, message: str) -> None:
        """A line that stays."""
        if not self.quiet:
            self.print(f"\r\033[K{message}" if self.live else message)

    def close(self) -> None:
        if self.live:
            self.print("")

    @staticmethod
    def print(text: str, end: str = "\n") -> None:
        print(text, end=end, file=sys.stderr, flush=True)


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: 1 class, 1,000 classes."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def clock(seconds: float) -> str:
    """Seconds as 3:07 or 1:02:03; -:-- if unknown."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def about(seconds: float) -> str:
    """Seconds as people say them, to about a tenth: 40 s, 5 min, 2 h 10 min, 3 days 4 h."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60 - 5:
        hours, rest = divmod(round(minutes / 10) * 10, 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    days, hours = divmod(round(minutes / 60), 24)
    return counted(days, "day") + (f" {hours} h" if hours else "")
