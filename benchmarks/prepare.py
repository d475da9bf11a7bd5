"""How fast `catgan prepare` is, with one process and with two: `python benchmarks/prepare.py`.

JPEGs of 500x375, cut from the two photographs that scikit-learn ships, to 256x256. Start-up (imports) is taken off: it
is the time of a call on finished data.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

COUNT = 400
RUNS = (("1 process, 1 thread", 1, 1), ("1 process, 2 threads", 1, 2), ("2 processes, 1 thread each", 2, 1))


def photographs(folder: Path) -> None:
    chance = np.random.default_rng(0)
    whole = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for k in range(COUNT):
        left, top = chance.integers(0, 140), chance.integers(0, 50)
        path = folder / str(k % 10) / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole[k % 2].crop((left, top, left + 500, top + 375)).save(path, quality=90)


def seconds(source: Path, dest: Path, world: int, threads: int) -> float:
    command = [
        sys.executable,
        "-m",
        "catgan",
        "prepare",
        str(source),
        str(dest),
        "--size",
        "256",
        "--workers",
        str(threads),
    ]
    began = time.perf_counter()
    processes = [
        subprocess.Popen(
            [*command, "--shard-rows", "50"],
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": str(world)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(world)
    ]
    if any(process.wait() for process in processes):
        raise SystemExit("catgan prepare failed")
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        photographs(source)
        print(f"{COUNT} JPEGs of 500x375 to 256x256, {os.cpu_count()} CPU cores")
        for shown, world, threads in RUNS:
            dest = Path(name) / f"dest-{world}-{threads}"
            spent = seconds(source, dest, world, threads)
            spent -= seconds(source, dest, world, threads)
            print(f"{shown:<28} {COUNT / spent:6.0f} pictures/s")


if __name__ == "__main__":
    main()
