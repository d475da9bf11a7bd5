"""Writing files so that a crash, a full disk or a second reader never meets half of one."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from catgan.errors import UserError


def discard(path: Path) -> None:
    """Delete a file if it is there and can be."""
    with contextlib.suppress(OSError):
        path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all."""
    write_atomically(path, lambda aside: aside.write_text(text, "utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all."""
    write_atomically(path, lambda aside: aside.write_bytes(data))


def write_atomically(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a file aside, flush it to the disk and rename it to `path`. Nothing half-written is left.

    Raises UserError when the place cannot be written or is full.
    """
    aside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fill(aside)
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, SafetensorError) as error:
        discard(aside)
        code = getattr(error, "errno", None)
        if code in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise UserError(
                f"the disk is full: could not write {path}; what was there before is untouched; free some space"
            ) from None
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None
    except BaseException:
        discard(aside)
        raise
