"""A picture of the page's user, projected to a style, told step by step."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from catgan.data.decode import BrokenError, opened
from catgan.errors import UserError
from catgan.images import to_bytes
from catgan.sampling.inversion import invert, latents_of, own_discriminator, read_picture, total_steps
from catgan.sampling.pipeline import CATPipeline

MAX_PIXELS = 2**25  # of a picture, before it is made small: 33 millions
STARTS = 512
PAUSE = 0.2  # seconds between two looks at where it is


class StoppedError(Exception):
    """Nobody waits for it any more."""


def project(
    pipe: CATPipeline, data: bytes, steps: int, tell: Callable[[dict[str, Any]], None], stop: threading.Event
) -> dict[str, Any]:
    """Project the picture file `data`; `tell` hears of progress. Returns the style, and how near its sample is.

    Raises UserError for what is no picture, and StoppedError soon after `stop` is set.
    """
    if stop.is_set():
        raise StoppedError
    picture = target(pipe, data)
    tell({"target": encoded(to_bytes(picture)[0])})
    total, shown = total_steps(steps), 0.0

    def progress(done: int, h: Tensor) -> None:
        nonlocal shown
        if stop.is_set():
            raise StoppedError
        if done and time.monotonic() - shown > PAUSE:
            shown = time.monotonic()
            with torch.no_grad():
                tell({"done": done, "total": total, "picture": encoded(to_bytes(pipe.decode(h[:1].cpu()))[0])})

    found = invert(pipe, latents_of(pipe, picture), steps, STARTS, (), own_discriminator(pipe), progress)
    label, seed = found.starts[0]
    return {
        "w": base64.b64encode(found.w[0].float().numpy().astype("<f4").tobytes()).decode(),
        "psnr": found.psnr[0],
        "start_psnr": found.start_psnr[0],
        "label": label,
        "seed": seed,
        "picture": encoded(to_bytes(pipe.decode(found.frames[-1]))[0]),
    }


def target(pipe: CATPipeline, data: bytes) -> Tensor:
    """A picture file as the generator has pictures, (1, C, P, P) in [-1, 1]: its centre square. Raises UserError."""
    try:
        with opened(data) as header:
            if header.width * header.height > MAX_PIXELS:
                raise BrokenError(f"{header.width}x{header.height} pixels, more than {MAX_PIXELS / 1e6:.0f} millions")
        return read_picture(pipe, data)[None]
    except (BrokenError, OSError) as error:
        raise UserError(f"picture cannot be read: {error}") from None


def encoded(pixels: np.ndarray) -> dict[str, Any]:
    """uint8 (P, P, C) for JSON."""
    return {"shape": pixels.shape, "pixels": base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode()}
