"""From the bytes of a picture file to upright pixels of 8 bits, grey or RGB; everything else is said to be broken."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from catgan.data.crop import MAX_PIXELS, Crop, square

# What may be opened. Pillow knows more formats; some of them start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
MAX_BYTES = 2**29  # of one picture file
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")

TURN = Image.Transpose
UPRIGHT = {  # EXIF orientation: what makes it upright
    2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM, 5: TURN.TRANSPOSE,
    6: TURN.ROTATE_270, 7: TURN.TRANSVERSE, 8: TURN.ROTATE_90,
}  # fmt: skip


class BrokenError(Exception):
    """A picture that cannot be used; the message is the reason, in a few words that many files may share."""


@dataclass(frozen=True)
class Picture:
    """One decoded picture."""

    pixels: np.ndarray  # (S, S, C), uint8
    width: int  # of the original, upright
    height: int
    changes: tuple[str, ...]  # what was done beside cropping and resizing
    jpeg: bytes = b""  # its pixels as a JPEG file, where that is what is kept


def with_jpeg(picture: Picture, quality: int) -> Picture:
    """The picture with its JPEG file, all colours at full resolution."""
    file, pixels = io.BytesIO(), picture.pixels
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
        file, "JPEG", quality=quality, subsampling=0
    )
    return replace(picture, jpeg=file.getvalue())


def from_jpeg(data: bytes | memoryview, size: int, channels: int) -> np.ndarray:
    """The pixels (size, size, channels), uint8, of a JPEG file that `with_jpeg` made. Raises BrokenError for any other."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            if picture.size != (size, size) or picture.mode != {1: "L", 3: "RGB"}[channels]:
                raise BrokenError(f"{picture.mode} of {picture.width}x{picture.height}, not {size}x{size}")
            return np.asarray(picture).reshape(size, size, channels)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenError(first_words(error)) from None


def to_picture(data: bytes | np.ndarray, size: int, channels: int, crop: Crop) -> Picture:
    """Decode the bytes of a file, or take uint8 pixels (H, W), and make them size x size. Raises BrokenError."""
    try:
        if isinstance(data, np.ndarray):
            picture, changes = Image.fromarray(data), list[str]()
        else:
            picture, changes = decode(data)
        wanted = "L" if channels == 1 else "RGB"
        if picture.mode != wanted:
            changes.append("colour to grey" if wanted == "L" else "grey to colour")
        width, height = picture.size
        if min(width, height) < size:
            changes.append("enlarged")
        made = square(picture.convert(wanted), size, crop)
        return Picture(np.asarray(made).reshape(size, size, channels), width, height, tuple(changes))
    except (BrokenError, MemoryError):
        raise
    except Exception as error:  # decoders fail in many ways; whatever the way, the file is of no use
        raise BrokenError(f"damaged: {first_words(error)}") from None


def decode(data: bytes) -> tuple[Image.Image, list[str]]:
    """The first frame, upright, transparency on white, in mode L or RGB, and what that took."""
    picture = opened(data)
    changes: list[str] = []
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        changes.append("first frame")
    picture.load()
    turn = orientation(picture)
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
        wide = np.asarray(picture).astype(np.int64)
        picture = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
        changes.append("16 bits to 8")
    elif picture.mode in ("I", "F"):
        raise BrokenError("numbers without a known range (32 bits a pixel)")
    if picture.mode == "CMYK":
        changes.append("CMYK to RGB")
    if picture.has_transparency_data:
        picture, seen_through = on_white(picture)
        if seen_through:
            changes.append("on white")
    picture = picture.convert("L" if picture.mode in GREY_MODES else "RGB")
    if turn != 1:
        picture = picture.transpose(UPRIGHT[turn])
        changes.append("turned upright")
    return picture, changes


def opened(data: bytes) -> Image.Image:
    """The picture with its header read. Raises BrokenError if there is none, or if it would be too large."""
    if not data:
        raise BrokenError("empty file")
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BrokenError("no picture of a known format") from None
    except Image.DecompressionBombError:
        raise BrokenError(f"more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise
    except Exception as error:
        raise BrokenError(f"damaged: {first_words(error)}") from None
    if picture.width * picture.height > MAX_PIXELS:
        raise BrokenError(f"more than {MAX_PIXELS:,} pixels")
    return picture


def is_grey(data: bytes | np.ndarray) -> bool:
    """Whether a picture has no colour channels, by its header. Raises BrokenError."""
    return data.ndim == 2 if isinstance(data, np.ndarray) else opened(data).mode in GREY_MODES


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where it is missing or nonsense."""
    turn: object = 1
    with contextlib.suppress(Exception):  # a damaged EXIF block says nothing against the pixels
        turn = picture.getexif().get(0x0112, 1)
    return turn if isinstance(turn, int) and turn in UPRIGHT else 1


def on_white(picture: Image.Image) -> tuple[Image.Image, bool]:
    """Composite on white, in RGB or, for grey, in L; and whether anything was transparent."""
    grey = picture.mode in GREY_MODES
    layered = picture.convert("RGBA")
    lowest, _ = layered.getchannel("A").getextrema()
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    flat = Image.alpha_composite(white, layered).convert("RGB")
    return flat.convert("L") if grey else flat, lowest < 255  # type: ignore[operator]


def first_words(error: Exception) -> str:
    """The start of an exception's message, on one line, without the addresses of objects."""
    text = " ".join(str(error).split()).partition(" <")[0]
    return text[:80] or type(error).__name__
