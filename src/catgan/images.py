"""Tensors to pictures: bytes, grids, PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from catgan.system.files import write_bytes

GAP = 2  # pixels between the tiles of a grid
MARGIN = 5  # pixels around words
BACKGROUND = 255


Rounding = Literal["round", "floor"]


def to_bytes(x: Tensor, rounding: Rounding = "round") -> np.ndarray:
    """Pixels in [-1, 1], (..., C, S, S), to uint8 (..., S, S, C), rounded to the nearest byte or down, and clamped."""
    array: np.ndarray = quantized(x.detach().float().cpu(), rounding).movedim(-3, -1).contiguous().numpy()
    return array


def quantized(x: Tensor, rounding: Rounding = "round") -> Tensor:
    """Pixels in [-1, 1] to uint8 of the same shape, rounded to the nearest byte or down, and clamped."""
    pixels = (x + 1) * 127.5
    return (pixels.round() if rounding == "round" else pixels.floor()).clamp(0, 255).byte()


def from_bytes(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 (..., C, S, S) to pixels in [-1, 1]."""
    return pixels.to(dtype) / 127.5 - 1


def visible(x: Tensor) -> Tensor:
    """Something to look at for any channel count: latents show their first three channels at a third of their size."""
    channels = x.shape[-3]
    if channels in (1, 3):
        return x
    return x[..., :3, :, :] / 3 if channels > 3 else x[..., :1, :, :]


def to_picture(array: np.ndarray) -> Image.Image:
    """uint8 (H, W, C) with C = 1 or 3 to a picture."""
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def tile_zoom(size: int) -> int:
    """Whole-number enlargement that makes a tile of `size` pixels about 64 wide."""
    return max(1, 64 // size)


def enlarged(tile: np.ndarray, zoom: int) -> np.ndarray:
    """A tile (S, S, C) with each pixel zoom x zoom times."""
    return tile.repeat(zoom, 0).repeat(zoom, 1)


def grid(tiles: Sequence[Sequence[np.ndarray]], zoom: int = 1) -> Image.Image:
    """Rows of uint8 tiles (S, S, C) to one picture, with a thin white gap between them."""
    size = tiles[0][0].shape[0] * zoom
    columns = max(len(row) for row in tiles)
    sheet = np.full(
        (len(tiles) * (size + GAP) - GAP, columns * (size + GAP) - GAP, tiles[0][0].shape[-1]), BACKGROUND, np.uint8
    )
    for i, row in enumerate(tiles):
        for j, tile in enumerate(row):
            big = enlarged(tile, zoom)
            sheet[i * (size + GAP) : i * (size + GAP) + size, j * (size + GAP) : j * (size + GAP) + size] = big
    return to_picture(sheet)


def labelled(picture: Image.Image, columns: Sequence[str], rows: Sequence[str]) -> Image.Image:
    """A grid with words above its columns, shortened to their width, and to the left of its rows."""
    font = ImageFont.load_default(12)
    left, top = int(max(map(font.getlength, rows))) + 2 * MARGIN, 12 + 2 * MARGIN
    sheet = Image.new(picture.mode, (picture.width + left, picture.height + top), "white")
    sheet.paste(picture, (left, top))
    draw = ImageDraw.Draw(sheet)
    width, height = (picture.width + GAP) / len(columns), (picture.height + GAP) / len(rows)
    for i, text in enumerate(columns):
        while font.getlength(text) > width - GAP and len(text) > 1:
            text = text.rstrip("…")[:-1] + "…"
        draw.text((left + (i + 0.5) * width - GAP / 2, top / 2), text, "black", font, "mm")
    for i, text in enumerate(rows):
        draw.text((left - MARGIN, top + (i + 0.5) * height - GAP / 2), text, "black", font, "rm")
    return sheet


def captioned(picture: Image.Image, text: str) -> Image.Image:
    """A picture with a line of words below it, broken where it is too narrow for them."""
    font, lines = ImageFont.load_default(12), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > picture.width - 2 * MARGIN and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    sheet = Image.new(picture.mode, (picture.width, picture.height + 16 * len(lines) + MARGIN), "white")
    sheet.paste(picture)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((MARGIN, picture.height + 16 * i + 8 + MARGIN / 2), line, "black", font, "lm")
    return sheet


def png(picture: Image.Image) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a PNG file as a whole or not at all."""
    write_bytes(path, png(picture))


def gif(tiles: Sequence[np.ndarray], milliseconds: int, zoom: int = 1) -> bytes:
    """uint8 tiles (S, S, C) as the bytes of an endless GIF that goes forth and back."""
    frames = [grid([[tile]], zoom) for tile in (*tiles, *tiles[-2:0:-1])]
    buffer = io.BytesIO()
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()
