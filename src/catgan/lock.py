"""One run at a time in a run directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import time
from pathlib import Path
from typing import TextIO

from catgan.errors import UserError


class RunLock:
    """A lock on FOLDER/.lock that the system gives back when the process ends, however it ends.

    The text in the file only tells others whom to wait for; nothing is concluded from it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file: TextIO | None = None

    def take(self) -> None:
        """Lock the folder, which is made if need be. Raises UserError if it is in use or cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}; choose another --out") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            file.close()
            raise UserError(
                f"{self.folder} is in use by another run{f' ({holder})' if holder else ''}: "
                "wait for it or choose another --out"
            ) from None
        except OSError as error:
            file.close()
            raise UserError(
                f"cannot lock {self.folder}: {error.strerror}; choose an --out on a file system that has locks"
            ) from None
        self.file = file
        self.note(f"process {os.getpid()} on host {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")

    def release(self) -> None:
        """Let others in. The empty file stays: to delete it could take the lock from under somebody who waits."""
        if self.file is not None:
            self.note("")
            self.file.close()
            self.file = None

    def note(self, text: str) -> None:
        assert self.file is not None
        with contextlib.suppress(OSError):  # a full disk must not end what works without the note
            self.file.truncate(0)
            self.file.write(text)
            self.file.flush()
