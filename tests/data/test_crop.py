"""Cropping as ADM does, against the formula written with matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from catgan.data.crop import center_crop, square


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def box(x: np.ndarray) -> np.ndarray:
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def rounded(a: np.ndarray) -> np.ndarray:
    return np.floor(a + 0.5)


def weights(before: int, after: int, kernel: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(after, before): each new pixel as a weighted mean; the kernel widens where pixels become fewer."""
    scale = before / after
    centre = (np.arange(after) + 0.5)[:, None] * scale
    w = kernel((np.arange(before)[None] + 0.5 - centre) / max(scale, 1.0))
    return w / w.sum(1, keepdims=True)


def reference(pixels: np.ndarray, size: int) -> np.ndarray:
    def resized(a: np.ndarray, height: int, width: int, kernel: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        a = np.clip(rounded(a @ weights(a.shape[1], width, kernel).T), 0, 255)  # Pillow goes row by row first,
        return np.clip(rounded(weights(a.shape[0], height, kernel) @ a), 0, 255)  # and keeps bytes in between

    a = pixels.astype(float)
    while min(a.shape) >= 2 * size:
        # Sides of 4n + 1 put the middle of a pixel on the edge of a box: which of two boxes has it is rounding's choice.
        assume(all(side % 4 != 1 for side in a.shape))
        a = resized(a, a.shape[0] // 2, a.shape[1] // 2, box)
    height, width = (round(side * size / min(a.shape)) for side in a.shape)
    a = resized(a, height, width, cubic)
    top, left = (height - size) // 2, (width - size) // 2
    return a[top : top + size, left : left + size]


@given(st.integers(3, 70), st.integers(3, 70), st.integers(2, 24), st.integers(0, 2**32 - 1))
def test_center_crop_equals_the_formula_up_to_rounding(width: int, height: int, size: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    made = np.asarray(center_crop(Image.fromarray(pixels), size)).astype(int)
    assert made.shape == (size, size)
    assert np.abs(made - reference(pixels, size)).max() <= 2


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for crop in ("center", "resize"):
        assert np.array_equal(np.asarray(square(Image.fromarray(pixels), 16, crop)), pixels)


def test_the_crop_keeps_the_middle_and_the_resize_keeps_all() -> None:
    pixels = np.zeros((8, 24), np.uint8)
    pixels[:, 8:16] = 200
    assert (np.asarray(square(Image.fromarray(pixels), 8, "center")) == 200).all()
    whole = np.asarray(square(Image.fromarray(pixels), 8, "resize"))
    assert whole[0, 0] == whole[0, -1] == 0 < whole[0, 4]


def test_a_strip_that_would_become_huge_is_refused() -> None:
    with pytest.raises(ValueError, match="strip of 1x40000"):
        center_crop(Image.new("L", (1, 40000)), 256)
