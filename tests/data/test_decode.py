"""Whatever a picture file holds, it becomes upright 8-bit pixels on white, or a reason why not."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catgan.data.decode import BrokenError, Picture, is_grey, to_picture

# Four quarters: top left red, top right green, bottom left blue, bottom right white.
QUARTERS = np.zeros((16, 16, 3), np.uint8)
QUARTERS[:8, :8, 0] = QUARTERS[:8, 8:, 1] = QUARTERS[8:, :8, 2] = 255
QUARTERS[8:, 8:] = 255


def packed(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def made(data: bytes, channels: int = 3, size: int = 16) -> Picture:
    return to_picture(data, size, channels, "center")


def close(picture: Picture, expected: np.ndarray, by: int = 0) -> bool:
    return int(np.abs(picture.pixels.astype(int) - expected).max()) <= by


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF", "JPEG"])
def test_every_format_gives_its_pixels(kind: str) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    picture = made(packed(Image.fromarray(QUARTERS), kind, **options))
    assert close(picture, QUARTERS, 3 if kind == "JPEG" else 0)
    assert (picture.width, picture.height) == (16, 16)


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_undone(turn: int) -> None:
    """The stored pixels of orientation t are those that turning by t makes upright (EXIF 2.32, tag 0x0112)."""
    q = QUARTERS[:, :12]
    stored = {
        1: q, 2: q[:, ::-1], 3: q[::-1, ::-1], 4: q[::-1],
        5: q.swapaxes(0, 1), 6: q.swapaxes(0, 1)[::-1], 7: q.swapaxes(0, 1)[::-1, ::-1], 8: q.swapaxes(0, 1)[:, ::-1],
    }[turn]  # fmt: skip
    picture = Image.fromarray(np.ascontiguousarray(stored))
    exif = picture.getexif()
    exif[0x0112] = turn
    upright = made(packed(picture, exif=exif), size=12)
    assert (upright.width, upright.height) == (12, 16)
    assert close(upright, q[2:14])
    assert ("turned upright" in upright.changes) == (turn != 1)


def test_a_damaged_exif_block_does_not_spoil_the_picture() -> None:
    data = packed(Image.fromarray(QUARTERS), "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0II*\0garbage")
    assert close(made(data), QUARTERS, 3)


def test_cmyk_becomes_rgb() -> None:
    picture = made(packed(Image.fromarray(QUARTERS).convert("CMYK"), "TIFF"))
    assert close(picture, QUARTERS)
    assert picture.changes == ("CMYK to RGB",)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        picture = made(packed(Image.fromarray(values), kind), channels=1)
        assert close(picture, np.arange(256).reshape(16, 16, 1))
        assert picture.changes == ("16 bits to 8",)


def test_a_palette_becomes_its_colours() -> None:
    assert close(made(packed(Image.fromarray(QUARTERS).quantize(8))), QUARTERS, 1)


@pytest.mark.parametrize("how", ["RGBA", "LA", "palette", "colour key"])
def test_transparency_is_laid_on_white(how: str) -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:8, :, 3] = 255  # above: black; below: nothing
    expected = np.zeros((16, 16, 3), np.uint8)
    expected[8:] = 255
    if how in ("RGBA", "LA"):
        data = packed(Image.fromarray(pixels).convert(how))
    else:
        picture = Image.fromarray(np.repeat([[0], [7]], 8, 0).repeat(16, 1).astype(np.uint8))
        if how == "palette":
            picture = picture.convert("P")
        data = packed(picture, transparency=7)
    picture = made(data)
    assert close(picture, expected)
    assert "on white" in picture.changes


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    picture = made(packed(Image.fromarray(QUARTERS).convert("RGBA")))
    assert close(picture, QUARTERS)
    assert picture.changes == ()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = made(packed(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert close(picture, np.broadcast_to(np.array([255, 0, 0]), (16, 16, 3)))
    assert "first frame" in picture.changes


def test_channels_follow_the_request() -> None:
    grey = packed(Image.new("L", (16, 16), 77))
    assert close(made(grey), np.full((16, 16, 3), 77))
    assert "grey to colour" in made(grey).changes
    assert close(made(packed(Image.new("RGB", (16, 16), (77, 77, 77))), channels=1), np.full((16, 16, 1), 77))
    assert is_grey(grey)
    assert not is_grey(packed(Image.fromarray(QUARTERS)))


def test_a_small_picture_is_enlarged_and_says_so() -> None:
    assert made(packed(Image.new("RGB", (5, 40), "red"))).changes == ("enlarged",)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size, without pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello, I am a text", "no picture of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a known format"),
        (packed(Image.fromarray(QUARTERS), "JPEG")[:400], "damaged"),
        (packed(Image.fromarray(QUARTERS))[:-30], "damaged"),
        (png_header(10_000, 10_000), "more than 89,478,485 pixels"),
        (png_header(60_000, 60_000), "more than 89,478,485 pixels"),
        (png_header(16, 16), "damaged"),
        (packed(Image.new("F", (16, 16), 0.5), "TIFF"), "numbers without a known range"),
        (packed(Image.new("L", (1, 60_000))), "a strip of 1x60000"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_used_is_given_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenError, match=reason):
        made(data, size=256)


@pytest.mark.filterwarnings("ignore")
def test_a_hundred_mutated_pictures_are_read_or_refused_and_nothing_else() -> None:
    chance = np.random.default_rng(0)
    noise = Image.fromarray(chance.integers(0, 256, (24, 24, 3), np.uint8))
    wholes = [packed(noise, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")]
    outcomes = set()
    for number in range(120):
        data = bytearray(wholes[number % len(wholes)])
        if number % 2:
            for place in chance.integers(0, len(data), 1 + number % 7):
                data[place] ^= int(chance.integers(1, 256))
        else:
            del data[int(chance.integers(0, len(data))) :]
        try:
            assert made(bytes(data), 3, 8).pixels.shape == (8, 8, 3)
            outcomes.add("read")
        except BrokenError as error:
            outcomes.add("refused" if "\n" not in str(error) else str(error))
    assert outcomes == {"read", "refused"}
