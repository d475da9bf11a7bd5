"""Writing files so that a crash, a full disk or a second reader never meets half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from catgan.errors import UserError, brief

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def discard(path: Path) -> None:
    """Delete a file or folder if it is there and can be."""
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all."""
    write_atomically(path, lambda aside: aside.write_text(text, "utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all."""
    write_atomically(path, lambda aside: aside.write_bytes(data))


def write_shared(path: Path, text: str, rank: int) -> None:
    """Write a text file that several processes may write at once, with the same text."""
    own = path.with_name(f".rank-{rank}-{path.name}")
    write_text(own, text)
    os.replace(own, path)


def write_atomically(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a file aside, flush it to the disk and rename it to `path`. Nothing half-written is left.

    Raises UserError when the place cannot be written or is full.
    """
    with written_aside(path) as aside:
        fill(aside)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an .npy file as a whole or not at all."""
    import numpy as np

    def fill(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    write_atomically(path, fill)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, as readable for others as new files of this user are; safetensors would not let them."""
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, dict(about or {"format": "pt"}))
    path.chmod(mode)


def unused(folder: Path, names: Iterable[str]) -> list[Path]:
    """Where to put files of these names so that nothing is overwritten: all get one number, as grid-2.png, if need be."""
    for number in itertools.count(1):
        paths = [folder / (name if number == 1 else f"-{number}.".join(name.rsplit(".", 1))) for name in names]
        if not any(path.exists() for path in paths):
            break
    return paths


def check_vacant(path: Path) -> None:
    """Raise UserError unless nothing is at `path`, or an empty folder."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists and is not empty: choose another folder")


def write_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` put files into a new folder, aside, which then gets its name: all of it is there, or none.

    Raises UserError when something is at `path` already, or when the place cannot be written or is full.
    """
    check_vacant(path)
    with written_aside(path.resolve()) as aside:
        discard(aside)
        aside.mkdir()
        fill(aside)


def flush(path: Path) -> None:
    """Make sure that a file or the entries of a folder are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A hidden name beside `path`; what is put there is flushed and renamed to `path`, or deleted after an error."""
    aside = aside_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        for part in (*(aside.rglob("*") if aside.is_dir() else ()), aside):
            flush(part)
        os.replace(aside, path)
        flush(path.parent)
    except (OSError, SafetensorError) as error:
        discard(aside)
        raise unwritable(path, error) from None
    except BaseException:
        discard(aside)
        raise


def unwritable(path: Path, error: OSError | SafetensorError) -> UserError:
    """What to tell a user whose file or folder could not be written."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return UserError(
            f"the disk is full: could not write {path}; what was there before is untouched; free some space"
        )
    return UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}")


def aside_of(path: Path) -> Path:
    """The hidden name beside `path` for what is not yet, or no longer, whole."""
    return path.with_name(f".{path.name}.part")


def delete_folder(path: Path) -> None:
    """Delete a folder so that a crash never leaves half of it under its name."""
    aside = aside_of(path)
    discard(aside)
    os.replace(path, aside)
    discard(aside)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*parts: bytes | str) -> str:
    """A digest of texts and bytes, and of where one ends and the next begins: 32 hexadecimal digits."""
    joined = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        joined.update(len(data).to_bytes(8, "little") + data)
    return joined.hexdigest()[:32]


def parsed_json(text: str | bytes) -> Any:
    """What JSON says. Raises ValueError for anything else, also for what is nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def count(value: object) -> int:
    """A number of things, as JSON has it. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{brief(value)} is no number of things")
    return value


def texts(value: object) -> tuple[str, ...]:
    """A list of texts, as JSON has it. Raises ValueError for anything else."""
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise ValueError(f"{brief(value)} is no list of texts")
    return tuple(value)


def is_plain_name(name: object) -> bool:
    """Whether it names a file of the folder that it is said in, and of no other."""
    return isinstance(name, str) and name == Path(name).name and name not in ("", "..") and name.isprintable()


def read_json(path: Path) -> Any:
    """The contents of a JSON file. Raises UserError if it cannot be read."""
    try:
        return parsed_json(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError if there is none."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds {brief(content)}, not an object")
    return content


def read_if_there(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if it is missing or damaged."""
    try:
        content = parsed_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file with one a line, without damaged lines (as a crash leaves); empty if it is missing."""
    rows = []
    for line in path.read_text("utf-8", "replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(parsed_json(line))
    return [row for row in rows if isinstance(row, dict)]
