"""Many samples into one .npz that evaluators read (ADM's format): streamed, and resumable."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from catgan.checks import check_seed
from catgan.errors import UserError
from catgan.files import write_atomically, write_text
from catgan.pipeline import CATPipeline
from catgan.progress import Progress


def sample_npz(
    pipe: CATPipeline, path: Path, classes: list[int], first_seed: int, count: int, psi: float, batch: int
) -> Path:
    """Write `count` samples to `path`: arr_0, uint8 (count, S, S, C), and arr_1, their classes (count,).

    Sample i has class classes[i % len(classes)] and seed first_seed + i. Pixels go to a file beside `path` as they
    are made; called again with the same settings after an interruption, it goes on from there. Raises UserError if
    `path` exists, or if what lies beside it was begun with other settings.
    """
    if path.exists():
        raise UserError(f"{path} exists: delete it or choose another --out")
    pixels_path, state_path = path.with_name(f"{path.name}.pixels.npy"), path.with_name(f"{path.name}.state.json")
    identity = {
        "generator": pipe.fingerprint(), "precision": pipe.precision,
        "vae": None if pipe.vae is None else pipe.vae.identity,
        "classes": classes, "first_seed": first_seed, "count": count, "psi": psi,
    }  # fmt: skip
    check_seed(first_seed + count - 1)
    shape = (count, *pipe([classes[0]], [first_seed], psi=psi).array.shape[1:])
    done = begun(state_path, pixels_path, identity)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        needed = 2 * math.prod(shape)  # while the .npz is packed, the pixels are there twice
        if not done and needed > (free := shutil.disk_usage(path.parent).free):
            raise UserError(
                f"{count} samples need {needed / 1e6:,.1f} MB and {path.parent} has {free / 1e6:,.1f} MB free"
            )
        pixels = np.lib.format.open_memmap(pixels_path, "r+" if done else "w+", np.uint8, None if done else shape)
    except OSError as error:
        raise UserError(f"cannot write {pixels_path}: {error.strerror}; choose another --out") from None
    ys = np.array([classes[i % len(classes)] for i in range(count)], dtype=np.int64)
    progress = Progress(done, count, 1, "sample")
    since_saved = 0
    for start in range(done, count, batch):
        stop = min(start + batch, count)
        pixels[start:stop] = pipe(
            ys[start:stop].tolist(), range(first_seed + start, first_seed + stop), psi=psi, batch_size=batch
        ).array
        since_saved += stop - start
        if since_saved >= 1024 or stop == count:
            pixels.flush()
            remember(state_path, identity | {"done": stop})
            since_saved = 0
        progress.update(stop)
    progress.close()
    write_atomically(path, lambda aside: pack(aside, pixels, ys))
    pixels_path.unlink()
    state_path.unlink()
    return path


def remember(path: Path, state: dict[str, Any]) -> None:
    write_text(path, json.dumps(state))


def begun(state_path: Path, pixels_path: Path, identity: dict[str, Any]) -> int:
    """How many samples an interrupted call with the same settings has made."""
    if not (state_path.exists() and pixels_path.exists()):
        return 0
    state: dict[str, Any] = json.loads(state_path.read_text("utf-8"))
    done = int(state.pop("done"))
    for name, value in identity.items():
        if state.get(name) != value:
            raise UserError(
                f"{state_path} belongs to unfinished sampling with another {name} ({str(state.get(name))[:60]}, not {str(value)[:60]}): "
                "finish that, delete it, or choose another --out"
            )
    return done


def pack(path: Path, pixels: np.ndarray, classes: np.ndarray) -> None:
    """Write the two arrays as an uncompressed .npz, a chunk at a time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in (("arr_0", pixels), ("arr_1", classes)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = np.lib.format.header_data_from_array_1_0(array)
                np.lib.format.write_array_header_1_0(file, header)
                for start in range(0, len(array), 4096):
                    file.write(np.ascontiguousarray(array[start : start + 4096]).tobytes())
