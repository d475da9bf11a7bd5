"""Walks as files that open, with as many frames as were given and the time of each."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catgan.errors import UserError
from catgan.studio import movies
from catgan.studio.movies import MEDIA, formats, movie


def frames(count: int = 5, size: int = 8, channels: int = 3) -> list[np.ndarray]:
    """Random pictures, no two alike."""
    draws = np.random.default_rng(0)
    return [draws.integers(0, 256, (size, size, channels), np.uint8) for _ in range(count)]


def shown(data: bytes) -> tuple[list[np.ndarray], list[int]]:
    """The frames of a file, RGB, and the milliseconds of each."""
    pictures, times = [], []
    with Image.open(io.BytesIO(data)) as opened:
        for k in range(opened.n_frames):
            opened.seek(k)
            opened.load()
            times.append(opened.info["duration"])
            pictures.append(np.asarray(opened.convert("RGB")))
    return pictures, times


@pytest.mark.parametrize("channels", [1, 3])
def test_a_webp_has_the_very_pixels(channels: int) -> None:
    given = frames(channels=channels)
    pictures, times = shown(movie(given, "webp", 25))
    assert times == [40] * 5
    for picture, frame in zip(pictures, given, strict=True):
        assert picture.shape == (256, 256, 3)
        np.testing.assert_array_equal(picture[::32, ::32], frame.repeat(3 // channels, 2))


@pytest.mark.parametrize(("rate", "milliseconds"), [(1, 1000), (10, 100), (25, 40), (30, 30), (60, 20)])
def test_a_gif_has_each_frame_for_its_hundredths_of_a_second(rate: int, milliseconds: int) -> None:
    data = movie(frames(channels=1), "gif", rate)
    pictures, times = shown(data)
    assert times == [milliseconds] * 5
    assert b"NETSCAPE2.0\x03\x01\x00\x00" in data  # endless
    for picture, frame in zip(pictures, frames(channels=1), strict=True):
        np.testing.assert_array_equal(picture[::32, ::32], frame.repeat(3, 2))


def test_large_pictures_stay_as_they_are() -> None:
    pictures, _ = shown(movie(frames(2, 300), "webp", 25))
    assert pictures[0].shape == (300, 300, 3)


def test_without_ffmpeg_mp4_is_neither_offered_nor_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert formats() == ["gif", "webp"]
    with pytest.raises(UserError, match=r"^MP4 needs ffmpeg, .* save a GIF or WebP$"):
        movie(frames(), "mp4", 25)


def test_what_goes_wrong_in_ffmpeg_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false")
    assert formats() == list(MEDIA)
    with pytest.raises(UserError, match="ffmpeg could not write the film"):
        movie(frames(), "mp4", 25)
    hangs = tmp_path / "ffmpeg"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(hangs))
    monkeypatch.setattr(movies, "PATIENCE", 0.2)
    with pytest.raises(UserError, match="ffmpeg took more than"):
        movie(frames(), "mp4", 25)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_an_mp4_has_the_frames_and_their_rate() -> None:
    data = movie(frames(6, size=9), "mp4", 12)
    said = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames,r_frame_rate,width,height",
         "-of", "default=nw=1", "-"], input=data, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    assert {"nb_read_frames=6", "r_frame_rate=12/1", "width=252", "height=252"} <= set(said.split())
