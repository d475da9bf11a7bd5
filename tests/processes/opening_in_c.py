"""A process that does with files what Python does not see."""

from __future__ import annotations

import ctypes
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

from campaigns.opened import Opened, is_traced


def opens_in_c(mine: Path, other: Path, trace: Path, answers: Connection) -> None:
    """In a process that is traced: what is noticed of files that a C library opens, deletes and makes, and of a program."""
    while not is_traced():
        time.sleep(0.01)
    opened, c = Opened(trace), ctypes.CDLL(None)
    with opened.watched([mine]):
        c.open(os.fsencode(mine / "a"), os.O_RDONLY)
        c.open(os.fsencode(mine / ".." / other.name), os.O_RDONLY)
        folder = os.open(mine, os.O_RDONLY)
        c.openat(folder, b'../b \n\xff"', os.O_RDONLY)
        c.unlink(os.fsencode(other))
        c.symlink(b"/etc/passwd", os.fsencode(mine / "link"))
        c.system(b"true")
    answers.send((opened.elsewhere, opened.calls))
