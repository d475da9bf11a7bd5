"""Ctrl-C and SIGTERM during a run: noted, so that it can end in good order after the step that it is in."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class StopSignal:
    """The signal that came while this was entered, if any. A second one ends the process at once.

    Not under torchrun, which passes on what often reaches the processes directly too, and kills them by itself. Outside
    of the main thread, where Python handles no signals, none is noted.
    """

    def __init__(self, noted: Callable[[], None]) -> None:
        """noted: called when a signal comes."""
        self.number, self.noted = 0, noted
        self.agreed = 0  # what all processes know of; apart, as a signal may come while they agree
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self.note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.noted()
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            signal.signal(number, signal.SIG_DFL)

    def end(self) -> None:
        """End as the signal that was agreed on asks for, if one was: KeyboardInterrupt or SystemExit."""
        if self.agreed == signal.SIGINT:
            raise KeyboardInterrupt
        if self.agreed:
            raise SystemExit(128 + self.agreed)
