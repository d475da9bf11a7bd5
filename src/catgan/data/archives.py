"""The members of a zip or tar, each readable by itself and from several threads."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from catgan.data.decode import BrokenError
from catgan.errors import UserError

PACKERS: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": gzip.open,  # type: ignore[dict-item]
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}

DAMAGE = (  # what the libraries raise; the last four come from numbers and names that are untrue
    tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile,
    NotImplementedError, ValueError, OverflowError, struct.error,
)  # fmt: skip
UNPACKED, EXPANSION = 2**30, 100  # bytes that a packed tar may always become, and the times of its size beyond that


@dataclass(frozen=True)
class Member:
    name: str  # as the archive has it: not to be trusted
    kind: str  # "file", "folder" or "other"
    size: int  # bytes, as the archive claims
    read: Callable[[], bytes]


def members(path: Path) -> Iterator[Member]:
    """All members, in the archive's order. Raises UserError for a damaged archive or another kind of file."""
    try:
        if tarfile.is_tarfile(path):
            yield from tar_members(path)
        elif zipfile.is_zipfile(path):
            yield from zip_members(path)
        else:
            tables = f", or hf:{path.parent} for tables" if path.suffix in (".parquet", ".arrow", ".csv") else ""
            raise UserError(f"{path} is neither a zip nor a tar: pass an archive or a folder{tables}")
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of what bz2 says of its data
            raise
        raise UserError(f"{path} is damaged: {error}") from None


def zip_members(path: Path) -> Iterator[Member]:
    archive = zipfile.ZipFile(path)
    for info in archive.infolist():
        link = info.external_attr >> 28 == 0xA
        kind = "folder" if info.filename.endswith("/") else "other" if link else "file"
        yield Member(info.filename, kind, info.file_size, lambda info=info: archive.read(info))  # type: ignore[misc]


def tar_members(path: Path) -> Iterator[Member]:
    file = unpacked(path)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for info in archive:
            kind = "folder" if info.isdir() else "file" if info.isreg() and not info.issparse() else "other"
            yield Member(info.name, kind, info.size, reader(file, info.offset_data, info.size))
        # Python's tarfile takes a damaged header for the end. An end is a block of zeros, or nothing.
        if any(os.pread(file.fileno(), 512, archive.offset)):
            raise tarfile.ReadError(f"no header at byte {archive.offset:,}")


def reader(file: IO[bytes], start: int, size: int) -> Callable[[], bytes]:
    def read() -> bytes:
        data = os.pread(file.fileno(), size, start)
        if len(data) != size:
            raise BrokenError("cut off")
        return data

    return read


def unpacked(path: Path) -> IO[bytes]:
    """The tar as a file that can be read at any place: itself, or its contents in a nameless temporary file."""
    start = path.open("rb")
    magic = start.read(6)
    for head, opener in PACKERS.items():
        if magic.startswith(head):
            spool = tempfile.TemporaryFile()  # noqa: SIM115 (it goes with the last reader)
            most = max(UNPACKED, EXPANSION * path.stat().st_size)
            with opener(path) as packed:
                while piece := packed.read(2**20):
                    if spool.tell() + len(piece) > most:
                        raise UserError(
                            f"{path} becomes more than {most / 1e6:,.0f} MB when it is unpacked, far more than pictures do: "
                            "pack it without compression if that is right"
                        )
                    spool.write(piece)
            spool.seek(0)
            return spool
    start.seek(0)
    return start
