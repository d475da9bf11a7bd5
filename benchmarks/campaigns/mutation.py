"""Bad input made of good input: bytes, trees of JSON and YAML, archives that were made to harm, and what a page may send."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from typing import Any

WORDS = (
    "",
    " ",
    "../x",
    "../../etc/passwd",
    "/etc/passwd",
    "a\nb",
    "\x00",
    "\x1b[31m",
    "ü" * 400,
    "y" * 5000,
    "nan",
    "1e999",
    "\ud800",
)
NUMBERS = (0, -1, 1, 2, 7, 255, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, 0.5, -0.0, 1e-300, 1e308, float("inf"), float("nan"))  # fmt: skip
DEEP = "<deep>"  # what `dumped` writes as thousands of lists in each other, which no encoder would


def dumped(tree: Any) -> str:
    """A tree as JSON."""
    return json.dumps(tree).replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000)


def strange(chance: random.Random, depth: int = 2) -> Any:
    """A value that nobody expects there."""
    kind = chance.randrange(8 if depth else 5)
    if kind < 2:
        return chance.choice(NUMBERS)
    if kind < 4:
        return chance.choice(WORDS)
    if kind == 4:
        return chance.choice((None, True, False))
    if kind == 5:
        return [strange(chance, depth - 1) for _ in range(chance.randrange(4))]
    if kind == 6:
        return {str(strange(chance, 0)): strange(chance, depth - 1) for _ in range(chance.randrange(3))}
    return DEEP if chance.random() < 0.5 else [[[[[[chance.choice(NUMBERS)]]]]]]


def spots(tree: Any) -> list[tuple[Any, Any]]:
    """All (container, key) of a tree of dictionaries and lists."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = []
    for key, value in inside:
        found += [(tree, key), *spots(value)]
    return found


def grown(tree: Any, chance: random.Random) -> Any:
    """A copy of a tree with one to three changes in it."""
    tree = copy.deepcopy(tree)
    for _ in range(chance.randint(1, 3)):
        if not (there := spots(tree)):
            return strange(chance)
        container, key = chance.choice(there)
        match chance.randrange(6):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[chance.choice(WORDS)] = container.pop(key)
            case 2 if isinstance(container, dict):
                container[chance.choice(("format", "extra", *WORDS))] = strange(chance)
            case 3:
                container[key] = copy.deepcopy(chance.choice(there)[0])
            case _:
                container[key] = strange(chance)
    return tree


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Bytes with one to four changes: bits, cuts, gaps, repeats, and numbers that overflow."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(min(len(made), chance.choice((16, 64, 512, 10**9)))) if made else 0  # headers above all
        length = chance.choice((1, 2, 4, 8, 100))
        match chance.randrange(7):
            case 0 if made:
                made[at] ^= 1 << chance.randrange(8)
            case 1:
                del made[at:]
            case 2:
                del made[at : at + length]
            case 3:
                made[at:at] = chance.randbytes(length)
            case 4:
                made[at : at + length] = made[at : at + length] * 2
            case 5:
                made[at : at + length] = chance.choice((b"\xff", b"\x00", b"\x7f")) * length
            case _:
                made[at : at + 4] = chance.choice((2**31 - 1, 2**31, 2**32 - 1, 0, 65536)).to_bytes(
                    4, chance.choice(("big", "little"))
                )
    return bytes(made)


# -- archives ----------------------------------------------------------------------------------------------------------

NAMES = (
    "../x.png", "/etc/x.png", "C:\\x.png", "a/../../x.png", "a\\..\\x.png", "a/b/c.png", "x" * 300 + ".png", "\udce9.png",
    ".png", "a/.png", "a.png/b.png", "con.png",
)  # fmt: skip


def hostile_archive(picture: bytes, chance: random.Random) -> tuple[str, bytes]:
    """An archive and its suffix: bombs, links, devices, names that lead out of it, archives in it, claims that are untrue."""
    file = io.BytesIO()
    names = ["cats/a.png", "dogs/b.png", *chance.sample(NAMES, 2)]
    bomb = b"\0" * chance.choice((10, 2**20, 2**24))
    contents = [picture, damaged(picture, chance), bomb, b"", b"PK\x05\x06" + bytes(18)]
    if chance.random() < 0.5:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                info = zipfile.ZipInfo(name.encode("utf-8", "surrogateescape").decode("latin-1"))
                info.compress_type = chance.choice(
                    (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
                )
                info.external_attr = chance.choice((0, 0xA1FF0000, 0x41FF0010))
                archive.writestr(info, chance.choice(contents))
        return ".zip", file.getvalue()
    packing = chance.choice(("", "gz", "bz2", "xz"))
    with tarfile.open(fileobj=file, mode=f"w:{packing}") as archive:  # type: ignore[call-overload]
        for name in names:
            info = tarfile.TarInfo(name)
            data = chance.choice(contents)
            others = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
            info.type = chance.choice((*others, *(tarfile.REGTYPE,) * 4))
            info.linkname = chance.choice(("/etc/passwd", "../../x", "cats/a.png"))
            info.size = len(data) if info.type == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(data))
    return ".tar" + (f".{packing}" if packing else ""), file.getvalue()


# -- what a page may send to the studio --------------------------------------------------------------------------------

ODD: list[Any] = [
    None, True, -1, 0, 2**53, 2**63, 2**64, 1e308, -1e308, 0.5, float("nan"), float("inf"), "", "A" * 3000, "\x00",
    "../../etc/passwd", [], {}, [[]] * 9, [{}] * 101,
]  # fmt: skip


def odd_message(chance: random.Random) -> bytes | str:
    """Something near a request for pictures."""
    point = {"label": 1, "other": 2, "mix": 0.5, "seed": 3, "psi": 0.7, "w": None, "directions": [1.0, 2.0]}
    request = {"id": 1, "panel": "seeds", "points": [point], "model": 0, "to": None, "at": 0.5, "stages": False}
    match chance.randrange(6):
        case 0:
            return chance.randbytes(chance.randrange(300))
        case 1:
            depth = chance.choice([10, 1000, 100_000])
            return chance.choice(["[", '{"points":', '{"to":', '[{"a":']) * depth if depth < 1e5 else "[" * depth
        case 2:
            return damaged(json.dumps(request).encode(), chance)
        case 3:
            name = chance.choice(list(point))
            return json.dumps({**request, "points": [{**point, name: chance.choice(ODD)}]})
        case 4:
            return json.dumps({**request, chance.choice([*request, "x"]): chance.choice(ODD)})
        case _:
            digits = "9" * chance.choice([20, 400, 5000])
            odd = f"{chance.choice(['-', ''])}{digits}{chance.choice(['', 'e999', '.5'])}"
            return json.dumps(request).replace('"seed": 3', f'"seed": {odd}')


def odd_upload(chance: random.Random, good: bytes) -> bytes:
    """Something near a picture file that is good."""
    match chance.randrange(5):
        case 0:
            return chance.randbytes(chance.randrange(300))
        case 1:
            return good[: chance.randrange(len(good))]
        case 2:
            return good[:16] + damaged(good[16:], chance)
        case 3:
            return huge_picture(chance.choice([2**15, 2**20, 2**31 - 1]), chance.choice([2**15, 2**18]))
        case _:
            return damaged(good, chance)


def huge_picture(width: int, height: int) -> bytes:
    """A small PNG that says it has very many pixels, all of them black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    row = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")
