"""One run at a time in a run directory, and one maker at a time of what is kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from catgan.errors import UserError
from catgan.system.files import discard, unwritable
from catgan.system.progress import Progress


class RunLock:
    """A lock on FOLDER/.lock that the system gives back when the process ends, however it ends.

    The text in the file only tells others whom to wait for; nothing is concluded from it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / ".lock"
        self.file: TextIO | None = None
        self.made = False  # the folder was not there before

    def take(self) -> None:
        """Lock the folder, which is made if need be. Raises UserError if it is in use or cannot be written."""
        while self.file is None:
            try:
                self.made |= not self.folder.exists()
                self.folder.mkdir(parents=True, exist_ok=True)
                file = self.path.open("a+", encoding="utf-8")
            except OSError as error:
                raise UserError(f"cannot write to {self.folder}: {error.strerror}; choose another --out") from None
            try:
                self.lock(file)
                if self.is_current(file):
                    self.file = file
            finally:
                if self.file is None:
                    file.close()
        with contextlib.suppress(OSError):  # a full disk must not end what works without the note
            self.file.truncate(0)
            self.file.write(f"process {os.getpid()} on host {platform.node()}, since {time.strftime('%F %T')}\n")
            self.file.flush()

    def lock(self, file: TextIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise UserError(
                f"{self.folder} is in use by another run{f' ({holder})' if holder else ''}: "
                "wait for it or choose another --out"
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot lock {self.folder}: {error.strerror}; choose an --out on a file system that has locks"
            ) from None

    def is_current(self, file: TextIO) -> bool:
        """False if the holder before deleted the file between its opening and its locking here."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let others in. A folder that was made for the lock goes away if nothing was put into it."""
        if self.file is not None:
            discard(self.path)
            self.file.close()
            self.file = None
            if self.made:
                with contextlib.suppress(OSError):
                    self.folder.rmdir()


@contextlib.contextmanager
def exclusive(path: Path, waiting: str = "", taken: str = "") -> Iterator[None]:
    """Hold a lock on a file, after whoever has it: `waiting` is printed then. With `taken` UserError of it is raised instead.

    The lock goes with the process, however that ends; the file stays. Where the file system has no locks there is none.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise unwritable(path, error) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if taken:
                raise UserError(taken) from None
            Progress.print(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield
