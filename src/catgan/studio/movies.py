"""Walks as files: GIF and WebP by Pillow, MP4 by ffmpeg where it is installed."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from catgan.errors import UserError
from catgan.images import enlarged, to_picture

Format = Literal["gif", "webp", "mp4"]
MEDIA = {"gif": "image/gif", "webp": "image/webp", "mp4": "video/mp4"}
WIDE = 256  # smaller pictures are enlarged to about so many pixels
PATIENCE = 120  # seconds for ffmpeg


def formats() -> list[str]:
    """What can be written here."""
    return [f for f in MEDIA if f != "mp4" or shutil.which("ffmpeg")]


def movie(frames: Sequence[np.ndarray], format: Format, rate: int) -> bytes:
    """uint8 frames (S, S, 1 or 3) as the bytes of an endless file with `rate` frames a second.

    Small frames are enlarged, pixel by pixel. A GIF knows hundredths of a second, and no frame of less than two. Raises
    UserError for MP4 without ffmpeg, or if it fails.
    """
    zoom = max(1, WIDE // frames[0].shape[0])
    large = [enlarged(f, zoom) for f in frames]
    if format == "mp4":
        return mp4(large, rate)
    pictures = [to_picture(f) for f in large]
    if format == "webp":
        pictures = [p.convert("RGB") for p in pictures]
    shown = max(2, round(100 / rate)) * 10 if format == "gif" else round(1000 / rate)
    buffer, more = io.BytesIO(), {"lossless": True} if format == "webp" else {}
    pictures[0].save(buffer, format.upper(), save_all=True, append_images=pictures[1:], duration=shown, loop=0, **more)
    return buffer.getvalue()


def mp4(frames: Sequence[np.ndarray], rate: int) -> bytes:
    """The same as MP4 (H.264), which players and browsers everywhere take."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise UserError("MP4 needs ffmpeg, which is not installed here: install it, or save a GIF or WebP")
    height, width, channels = frames[0].shape
    with tempfile.TemporaryDirectory(prefix="catgan-film-") as folder:
        out = Path(folder) / "walk.mp4"
        given = ["-f", "rawvideo", "-pix_fmt", "gray" if channels == 1 else "rgb24", "-s", f"{width}x{height}"]
        made = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-crf", "12", "-movflags", "+faststart"]
        command = [program, "-v", "error", *given, "-r", str(rate), "-i", "-", *made, str(out)]
        pixels = b"".join(f.tobytes() for f in frames)
        try:
            done = subprocess.run(command, input=pixels, capture_output=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise UserError(f"ffmpeg took more than {PATIENCE} s: save fewer frames, or a GIF or WebP") from None
        if done.returncode:
            raise UserError(f"ffmpeg could not write the film: {done.stderr.decode(errors='replace').strip()[-200:]}")
        return out.read_bytes()
