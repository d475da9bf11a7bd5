"""Grids with words beside them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from catgan.images import grid, labelled


@pytest.mark.parametrize("channels", [1, 3])
def test_words_stand_beside_the_tiles_and_touch_none(channels: int) -> None:
    tiles = [[np.full((8, 8, channels), 60 * i, np.uint8) for i in range(3)] for _ in range(2)]
    plain = grid(tiles, 4)
    made = labelled(plain, ["a", "tench, Tinca tinca", "c"], ["seed 0", "seed 1"])
    left, top = made.width - plain.width, made.height - plain.height
    assert made.mode == plain.mode
    assert np.array_equal(made.crop((left, top, *made.size)), plain)
    for words in (made.crop((0, top, left, made.height)), *columns(made, left, top, 3)):
        assert np.asarray(words).min() < 128, "something is written"


def columns(made: Image.Image, left: int, top: int, count: int) -> list[Image.Image]:
    width = (made.width - left) / count
    return [made.crop((int(left + i * width), 0, int(left + (i + 1) * width), top)) for i in range(count)]
