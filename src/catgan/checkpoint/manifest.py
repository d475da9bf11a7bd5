"""The manifest of a checkpoint: what run it is of, where its tensors lie, and the checksums of its files.

A checkpoint is a folder of safetensors files, one for each group of tensors (the first part of their dotted names) and
process that had something of it, and a manifest.json, which is written last: without it the folder was never finished.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catgan.config import Config
from catgan.config_io import from_dict, to_dict
from catgan.errors import UserError, brief
from catgan.system.files import count, is_plain_name, parsed_json, texts

KIND = "catgan-checkpoint"
FORMAT = 3  # of the folder; 1 was a single file, 2 had other names and drew numbers for whole batches
MANIFEST = "manifest.json"
SEAL = ',\n "digest": '


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself."""

    step: int
    config: Config
    class_names: tuple[str, ...]
    objective: tuple[str, ...]  # its terms, as text
    samples: int  # seen so far: the position in the data


class DamagedError(UserError):
    """A folder that is not a complete checkpoint of this format."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: its rows, in order, in one file or several."""

    shape: tuple[int, ...]
    parts: tuple[tuple[str, int], ...]  # file, and the row of the tensor that is the first there


@dataclass(frozen=True)
class File:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    header: Header
    files: dict[str, File]
    tensors: dict[str, Place]

    def text(self) -> str:
        """JSON, a line for each field, the last of them a digest of the others."""
        h = self.header
        content = {
            "kind": KIND,
            "format": FORMAT,
            "step": h.step,
            "samples": h.samples,
            "config": to_dict(h.config),
            "class_names": h.class_names,
            "objective": h.objective,
            "files": {name: {"bytes": f.bytes, "sha256": f.sha256} for name, f in sorted(self.files.items())},
            "tensors": {name: {"shape": p.shape, "parts": p.parts} for name, p in sorted(self.tensors.items())},
        }
        return sealed("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in content.items()))


def sealed(body: str) -> str:
    return f'{body}{SEAL}"{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n'


def read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint, whose files are all there in their sizes; their content is not read.

    Raises DamagedError for what is no complete checkpoint, UserError for what cannot be read at all.
    """
    if path.is_file():
        raise DamagedError(
            f"{path} is a file: checkpoints are folders; of an older catgan, use the version that wrote it"
        )
    try:
        text = (path / MANIFEST).read_bytes().decode()
    except FileNotFoundError:
        if not path.exists():
            raise UserError(f"cannot read {path}: it does not exist") from None
        raise DamagedError(f"{path} was never finished: it has no {MANIFEST}") from None
    except OSError as error:
        raise UserError(f"cannot read {path / MANIFEST}: {error.strerror}") from None
    except ValueError:
        raise DamagedError(f"{path} is damaged: {MANIFEST} is no text") from None
    manifest = parsed(path, text)
    for name, file in manifest.files.items():
        try:
            size = (path / name).stat().st_size
        except OSError:
            raise DamagedError(f"{path} is damaged: {name} is missing") from None
        if size != file.bytes:
            raise DamagedError(f"{path} is damaged: {name} has {size} bytes instead of {file.bytes}")
    return manifest


def parsed(path: Path, text: str) -> Manifest:
    """The manifest of this text. Raises DamagedError."""
    whole = text == sealed(text.rpartition(SEAL)[0])
    try:
        content: dict[str, Any] = parsed_json(text)
        version = content["format"]
        if version == FORMAT and not whole:
            raise DamagedError(f"{path} is damaged: the digest of {MANIFEST} is wrong")
        if content["kind"] != KIND:
            raise DamagedError(f"{path} is no checkpoint of a run, but {brief(content['kind'])}")
        if version == FORMAT:
            config = from_dict(content["config"], where=str(path)).validate()
            names, objective = texts(content["class_names"]), texts(content["objective"])
            files = {name: File(count(file["bytes"]), str(file["sha256"])) for name, file in content["files"].items()}
            if outside := [name for name in files if not is_plain_name(name)]:
                raise DamagedError(
                    f"{path} is refused: it names the file {brief(outside[0])}, which is not in its folder"
                )
            places = {
                name: Place(
                    tuple(map(count, place["shape"])), tuple((file, count(row)) for file, row in place["parts"])
                )
                for name, place in content["tensors"].items()
            }
            if not all(place.parts and files.keys() >= {file for file, _ in place.parts} for place in places.values()):
                raise ValueError("tensors lie in files that it does not have")
            return Manifest(
                Header(count(content["step"]), config, names, objective, count(content["samples"])), files, places
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged: {MANIFEST} cannot be understood ({error!r:.200})") from None
    except DamagedError:
        raise
    except UserError as error:
        raise DamagedError(f"{path} does not fit this catgan: {error}") from None
    raise DamagedError(
        f"{path} has checkpoint format {brief(version)}, this catgan reads {FORMAT}: use the version that wrote it"
    )
