"""How fast `catgan prepare` is, with one process and with two: `python benchmarks/prepare.py`.

JPEGs of 500x375, cut from the two photographs that scikit-learn ships, to 256x256. Processes are forked when everything
is imported, so start-up does not count. Pictures a second by the clock mean nothing on a machine that is busy with
other work, whose load is printed; CPU time per picture still does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from catgan.data.prepare import make_plan, prepare
from catgan.data.sources import open_source
from catgan.system.processes import Processes

RUNS = (("1 process, 1 thread", 1, 1), ("1 process, 2 threads", 1, 2), ("2 processes, 1 thread each", 2, 1))


def photographs(folder: Path, count: int) -> None:
    chance = np.random.default_rng(0)
    whole = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for k in range(count):
        left, top = chance.integers(0, 140), chance.integers(0, 50)
        path = folder / str(k % 10) / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole[k % 2].crop((left, top, left + 500, top + 375)).save(path, quality=90)


def share(folder: Path, dest: Path, rank: int, world: int, threads: int) -> None:
    """What one process does."""
    source = open_source(str(folder))
    plan = make_plan(source, 256, shard_rows=50)
    prepare(source, dest, plan, threads=threads, processes=Processes(rank, world), quiet=True)


def spent(folder: Path, dest: Path, world: int, threads: int) -> tuple[float, float]:
    """Seconds by the clock, and of CPU time of all processes."""
    fork = multiprocessing.get_context("fork")
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    processes = [fork.Process(target=share, args=(folder, dest, rank, world, threads)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if any(process.exitcode for process in processes) or not (dest / "catgan.json").exists():
        raise SystemExit("prepare failed")
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400, help="how many pictures")
    count = parser.parse_args().count
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        photographs(source, count)
        print(f"{count} JPEGs of 500x375 to 256x256, {os.cpu_count()} CPU cores, load average {os.getloadavg()[0]:.1f}")
        for shown, world, threads in RUNS:
            clock, cpu = spent(source, Path(name) / f"dest-{world}-{threads}", world, threads)
            print(f"{shown:<28}{count / clock:6.0f} pictures/s by the clock, {1000 * cpu / count:5.1f} ms of CPU each")


if __name__ == "__main__":
    main()
