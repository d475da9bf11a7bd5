"""What is to be prepared: pictures by number, in an order that depends on what is there alone.

Folders and archives are arranged here; Hugging Face datasets and IDX files in `columns.py`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from catgan.data.archives import Member, members
from catgan.data.columns import has_idx, hugging_face, idx_files, is_saved_dataset
from catgan.data.decode import MAX_BYTES, PICTURE_SUFFIXES
from catgan.data.listing import ONE_CLASS, PictureSource, too_large
from catgan.errors import UserError

SPLITS = {"train", "val", "valid", "validation", "test"}
Handle = TypeVar("Handle")


def open_source(
    where: str, split: str | None = None, image_column: str | None = None, label_column: str | None = None
) -> PictureSource:
    """Find out what `where` is, and list it. Raises UserError if it is nothing that can be prepared."""
    path = Path(where)
    options = {"--split": split, "--image-column": image_column, "--label-column": label_column}
    if where.startswith("hf:") or is_saved_dataset(path):
        source = hugging_face(where, split, image_column, label_column)
    else:
        if not path.exists():
            raise UserError(
                f"{where} does not exist: must be a folder, a zip or tar, or hf:NAME of a Hugging Face dataset"
            )
        idx = path.is_dir() and has_idx(path)
        for name, value in options.items():
            if value is not None and not (idx and name == "--split"):
                raise UserError(f"{name} is {value}: only Hugging Face datasets and IDX files have that; leave it out")
        if (path / "catgan.json").exists():
            raise UserError(f"{where} is prepared data already: train on it with --data {where}")
        source = idx_files(path, split) if idx else folder(path) if path.is_dir() else archive(path)
    if not len(source):
        seen = ", ".join(f"{count} {kind}" for kind, count in sorted(source.ignored.items()))
        raise UserError(f"{where} holds no pictures ({seen or 'it is empty'}): must have files such as .jpg or .png")
    return source


def folder(root: Path) -> PictureSource:
    """A folder of pictures, or of one folder per class. Links are followed."""
    ignored: Counter[str] = Counter()
    files: dict[str, str] = {}
    folders = set()
    for path, kind in walk(root):
        if kind == "folder":
            folders.add(path)
        elif kind == "file":
            files[path] = path
        else:
            ignored["no plain file"] += 1

    def read(path: str) -> bytes:
        size = (root / path).stat().st_size
        return (root / path).read_bytes() if size <= MAX_BYTES else too_large()

    return arrange(str(root), files, folders, read, ignored)


def walk(root: Path) -> Iterator[tuple[str, str]]:
    """(path relative to root, "folder", "file" or "other") of all there is; a link back to a folder above is "other"."""
    pending: list[tuple[str, tuple[str, ...]]] = [("", ())]
    while pending:
        prefix, above = pending.pop()
        with os.scandir(root / prefix) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        above += (os.path.realpath(root / prefix),)
        for entry in found:
            path = prefix + entry.name
            if entry.is_dir() and os.path.realpath(entry.path) not in above:
                pending.append((f"{path}/", above))
                yield path, "folder"
            else:
                yield path, "file" if entry.is_file() else "other"


def archive(path: Path) -> PictureSource:
    """A zip or tar of such a folder. Members are read into memory; nothing is ever unpacked to the disk by its name."""
    ignored: Counter[str] = Counter()
    files: dict[str, Member] = {}
    folders = set()
    for member in members(path):
        name = inside(member.name)
        if name is None:
            ignored["name that leads out of the archive"] += 1
        elif member.kind == "folder":
            folders.add(name)
        elif member.kind == "other":
            ignored["no plain file"] += 1
        else:
            # Unpacking would leave the later of two members with one name: so do we.
            ignored["replaced by a later member of its name"] += name in files
            files[name] = member
    ignored = +ignored

    def read(member: Member) -> bytes:
        return member.read() if member.size <= MAX_BYTES else too_large()

    return arrange(str(path), files, folders - {""}, read, ignored)


def inside(name: str) -> str | None:
    """A member's name as a relative path with slashes, or None if it leads elsewhere."""
    name = name.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name):
        return None
    return "/".join(parts)


def arrange(
    where: str,
    files: dict[str, Handle],
    folders: Collection[str],
    read: Callable[[Handle], bytes],
    ignored: Counter[str],
) -> PictureSource:
    """Files by relative path to pictures by class: the layouts of docs/data.md. Raises UserError for a mixture."""
    pictures = {}
    for path, handle in files.items():
        reason = why_ignored(path)
        if reason is None:
            pictures[path] = handle
        else:
            ignored[reason] += 1
    split = {path: tuple(path.split("/")) for path in pictures}
    start = wrapping(list(split.values()))
    classes = {parts[start] if len(parts) > start + 1 else None for parts in split.values()}
    if None in classes and len(classes) > 1:
        loose = min(path for path, parts in split.items() if len(parts) == start + 1)
        filed = min(path for path, parts in split.items() if len(parts) > start + 1)
        raise UserError(
            f"{where} has pictures beside folders of pictures ({loose}, {filed}): put every picture into the folder of its class, or all into one"
        )
    names = sorted(name for name in classes if name is not None)
    if len(names) > 1 and SPLITS.issuperset(names):
        raise UserError(
            f"{where} is divided into {' and '.join(names)}, which are no classes: prepare {where}/{'train' if 'train' in names else names[0]} alone"
        )
    number = {name: k for k, name in enumerate(names)}
    order = sorted((number[p[start]] if names else 0, path) for path, p in split.items())
    handles = [pictures[path] for _, path in order]
    tops = {p[start] for f in folders if len(p := f.split("/")) > start and not hidden(f)}
    return PictureSource(
        where,
        [printable(path) for _, path in order],
        np.array([label for label, _ in order], dtype=np.int64),
        distinct([printable(name) for name in names] or [ONE_CLASS]),
        lambda i: read(handles[i]),
        dict(sorted(ignored.items())),
        tuple(printable(name) for name in sorted(tops - set(names))),
    )


def wrapping(paths: list[tuple[str, ...]]) -> int:
    """How many folders are wrapped around the classes: each holds one folder alone, which holds folders of pictures."""
    depth = 0
    while paths and len({p[depth] for p in paths}) == 1 and any(len(p) > depth + 2 for p in paths):
        depth += 1
    return depth


def hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def why_ignored(path: str) -> str | None:
    """Why a file is not taken for a picture: it is hidden, or has no ending of a picture; None if it is taken."""
    if hidden(path):
        return "hidden file"
    suffix = PurePosixPath(path).suffix.lower()
    return None if suffix in PICTURE_SUFFIXES else f"{printable(suffix)} file" if suffix else "file without ending"


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names, with a number behind those that an earlier class has: crane, crane (2)."""
    seen: Counter[str] = Counter()
    result: list[str] = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(result)


def printable(name: str) -> str:
    """A file name as valid text: bytes that are none become \\xNN."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
