"""Many samples into one .npz that evaluators read (ADM's format): resumable, and by several processes."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catgan.bounds import check_seed
from catgan.errors import UserError
from catgan.sampling.pipeline import CATPipeline
from catgan.system.files import discard, read_if_there, read_json, save_array, write_atomically, write_text
from catgan.system.pieces import check_same, unfinished, work_folder
from catgan.system.processes import Processes
from catgan.system.progress import Progress

CHUNK = 1024  # samples of a file of pixels that waits to be packed
ALONE = Processes()


def sample_npz(
    pipe: CATPipeline,
    path: Path,
    classes: list[int],
    first_seed: int,
    count: int,
    psi: float,
    batch: int,
    processes: Processes = ALONE,
) -> Path:
    """Write `count` samples to `path`: arr_0, uint8 (count, S, S, C), and arr_1, their classes (count,).

    Sample i has class classes[i % len(classes)] and seed first_seed + i. Pixels go to files in a folder beside `path`
    as they are made, of which each process makes every N-th; called again with the same settings after an interruption,
    it goes on with those that are missing. Neither changes a byte of the result. Raises UserError if `path` exists, or
    if what lies beside it was begun with other settings.
    """
    identity = {
        "generator": pipe.fingerprint(), "precision": pipe.precision, "backend": pipe.backend,
        "vae": None if pipe.vae is None else pipe.vae.identity,
        "classes": classes, "first_seed": first_seed, "count": count, "psi": psi,
    }  # fmt: skip
    check_seed(first_seed + count - 1)
    shape = (count, *pipe([classes[0]], [first_seed], psi=psi).array.shape[1:])
    folder = path.with_name(f"{path.name}.parts")
    processes.from_first(lambda: begin(path, folder, identity, shape))
    ys = np.array([classes[i % len(classes)] for i in range(count)], dtype=np.int64)
    parts = [folder / f"{begin:09}.npy" for begin in range(0, count, CHUNK)]
    with work_folder(folder, processes):
        mine = unfinished(len(parts), processes, lambda k: parts[k].exists())
        spans = {k: range(k * CHUNK, min((k + 1) * CHUNK, count)) for k in mine}
        progress = Progress(0, sum(map(len, spans.values())), 1, "sample", not processes.first)
        for k, span in spans.items():
            pixels = [
                pipe(ys[i:j].tolist(), range(first_seed + i, first_seed + j), psi=psi, batch_size=batch).array
                for i, j in ((i, min(i + batch, span.stop)) for i in span[::batch])
            ]
            save_array(parts[k], np.concatenate(pixels))
            progress.advance(len(span))
        progress.close()
        processes.wait()
        if processes.first:
            write_atomically(path, lambda aside: pack(aside, shape, parts, ys))
    processes.wait()
    return path


def begin(path: Path, folder: Path, identity: dict[str, Any], shape: Sequence[int]) -> None:
    """Make the folder for the pixels, or check that what is in it belongs to the same samples."""
    settings = folder / "settings.json"
    if path.exists():
        if read_if_there(settings) in ({}, json.loads(json.dumps(identity))):
            discard(folder)  # an interruption at the very end left the pieces of this file
        raise UserError(f"{path} exists: delete it or choose another --out")
    if settings.exists():
        stored, what = read_json(settings), f"{folder} belongs to unfinished sampling"
        check_same(stored, identity, what, "finish that, delete it, or choose another --out")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; choose another --out") from None
    needed = 2 * math.prod(shape)  # while the .npz is packed, the pixels are there twice
    if needed > free:
        raise UserError(
            f"{shape[0]} samples need {needed / 1e6:,.1f} MB and {path.parent} has {free / 1e6:,.1f} MB free"
        )
    write_text(settings, json.dumps(identity))


def pack(path: Path, shape: Sequence[int], parts: Sequence[Path], classes: np.ndarray) -> None:
    """Write pixels and classes as an uncompressed .npz, a part at a time. Equal content makes equal files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, dtype, size in (("arr_0", np.dtype(np.uint8), tuple(shape)), ("arr_1", classes.dtype, classes.shape)):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": size}
                np.lib.format.write_array_header_1_0(file, header)
                for part in (np.load(p) for p in parts) if name == "arr_0" else (classes,):
                    file.write(np.ascontiguousarray(part).tobytes())
