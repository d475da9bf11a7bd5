"""From a picture of any shape to a square of S x S pixels."""

from __future__ import annotations

from typing import Literal

from PIL import Image

Crop = Literal["center", "resize"]

MAX_PIXELS = 2**30 // 12  # of one picture, before and after resizing: 9,459 x 9,459


def center_crop(picture: Image.Image, size: int) -> Image.Image:
    """The centre square, as ADM prepares ImageNet (Dhariwal & Nichol 2021; the field's FID statistics assume it).

    Halve with a box filter while the short side is at least 2 * size, then bicubic until it is `size`, then cut.
    Raises ValueError where a very long strip would become a huge picture on the way.
    """
    while min(picture.size) >= 2 * size:
        width, height = picture.size
        picture = picture.resize((width // 2, height // 2), Image.Resampling.BOX)
    scale = size / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    if width * height > MAX_PIXELS:
        raise ValueError(f"a strip of {picture.width}x{picture.height} pixels")
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def square(picture: Image.Image, size: int, crop: Crop) -> Image.Image:
    """`center`: the centre square, proportions kept. `resize`: the whole picture, bicubic, proportions lost."""
    if crop == "center":
        return center_crop(picture, size)
    return picture.resize((size, size), Image.Resampling.BICUBIC)
