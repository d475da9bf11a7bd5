"""What the page may ask of the studio. Every field has bounds; what does not fit is refused with one line.

Requests are JSON. An answer of pictures is binary: 4 bytes, little-endian, the length of a header; the header, JSON;
and the arrays that it lists, one after the other.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct

from catgan.errors import UserError

MAX_POINTS = 100  # pictures of one request
MAX_DIRECTIONS = 10
MAX_FRAMES = 600  # of a film
MAX_MESSAGE = 1 << 20  # bytes of a request: as many points with a style of 1,500 numbers each
MAX_UPLOAD = 1 << 24  # bytes of a picture
SAFE = 2**53 - 1  # the largest whole number that JavaScript knows

Share = Annotated[float, Meta(ge=0, le=1)]
Number = Annotated[int, Meta(ge=0, le=SAFE)]
ModelNumber = Annotated[int, Meta(ge=0, le=100)]
Panel = Literal["sample", "seeds", "truncation", "sheet", "walk"]


class Point(Struct, frozen=True, forbid_unknown_fields=True):
    """One sample: of a class and seed, or of a style that is given; moved along the principal directions."""

    label: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # class number
    other: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None  # a second class
    mix: Share = 0.0  # how much of it: 0 none, 1 nothing else
    seed: Number = 0
    psi: Share = 1.0  # truncation towards the mean of the class, or of the mixture
    w: Annotated[str, Meta(max_length=1 << 16)] | None = None  # base64 of float32 (d,), in place of the seed
    directions: Annotated[list[Annotated[float, Meta(ge=-20, le=20)]], Meta(max_length=MAX_DIRECTIONS)] = []


class Request(Struct, frozen=True, forbid_unknown_fields=True):
    """Pictures of some points, or of one on the line between two."""

    id: Number
    panel: Panel  # of requests of the same panel and model the latest is answered, others may be dropped
    points: Annotated[list[Point], Meta(min_length=1, max_length=MAX_POINTS)]
    model: ModelNumber = 0
    to: Point | None = None  # the other end, for a single point
    at: Share = 0.0  # where between them
    stages: bool = False  # also h_0..h_K, x_0..x_K and their alignment, for a single point


class Film(Struct, frozen=True, forbid_unknown_fields=True):
    """A walk through points as a file."""

    points: Annotated[list[Point], Meta(min_length=2, max_length=MAX_POINTS)]
    model: ModelNumber = 0
    format: Literal["gif", "webp", "mp4"] = "gif"
    seconds: Annotated[float, Meta(ge=0.1, le=30)] = 1.0  # from one point to the next
    rate: Annotated[int, Meta(ge=1, le=60)] = 25  # frames a second
    loop: bool = True  # back to the first point at the end


T = TypeVar("T", Request, Film)


def read(data: bytes | str, kind: type[T]) -> T:
    """A request from JSON. Raises UserError, of one line, for anything else."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise UserError(f"message is no {kind.__name__.lower()}: {' '.join(str(error).split())[:200]}") from None


class Sender(Struct):
    """Whose request it is, of one whose other fields may be wrong."""

    id: Number
    panel: Panel
    model: ModelNumber = 0


def sender(data: bytes | str) -> dict[str, Any]:
    """id, panel and model of a request that was refused, for the page to know it by; nothing if they cannot be told."""
    try:
        return msgspec.structs.asdict(msgspec.json.decode(data, type=Sender))
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return {}


def packed(header: Mapping[str, Any], parts: Mapping[str, np.ndarray]) -> bytes:
    """An answer: the header with the name, shape and type of each array, and the arrays."""
    listed = [{"name": k, "shape": v.shape, "type": v.dtype.name} for k, v in parts.items()]
    text = msgspec.json.encode({**header, "parts": listed})
    text += b" " * (-len(text) % 4)  # float32 arrays come first, and lie at multiples of four
    return b"".join([struct.pack("<I", len(text)), text, *(np.ascontiguousarray(v).tobytes() for v in parts.values())])


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `packed` packed: the header and the arrays by name."""
    (length,) = struct.unpack_from("<I", data)
    header, start = msgspec.json.decode(data[4 : 4 + length]), 4 + length
    parts = {}
    for part in header.pop("parts"):
        array = np.frombuffer(data, part["type"], int(np.prod(part["shape"])), start).reshape(part["shape"])
        parts[part["name"]], start = array, start + array.nbytes
    return header, parts
