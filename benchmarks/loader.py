"""Does prepared data keep a trainer busy? `python benchmarks/loader.py`.

First how many pictures and latents a second the loader delivers by itself; then, in real training, the share of time
spent waiting for data (`time/data` of metrics.jsonl), with and without reading ahead.
On a busy machine, whose load is printed, samples a second say little; the share of time less so.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from catgan.config import Config, DataConfig
from catgan.data import Dataset, open_dataset, prefetch, rows
from catgan.data.encode import LatentEncoder
from catgan.data.listing import PictureSource
from catgan.data.prepare import make_plan, prepare
from catgan.recipes import recipe
from catgan.training import train

BATCH = 64
STEPS = {"digits": 40, "fashion-mnist": 3}


class NoiseVAE:
    """Moments of the right shape, as quickly as possible."""

    scale, downsample, channels, encoder_identity, path = 0.18215, 8, 4, "noise", "noise"

    def moments(self, x: torch.Tensor) -> torch.Tensor:
        return torch.rand(len(x), 8, x.shape[-1] // 8, x.shape[-1] // 8)


def made(folder: Path, count: int, size: int, channels: int, latents: bool = False) -> DataConfig:
    """Prepared noise of ten classes."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size), np.uint8)
    source = PictureSource(
        "noise", [str(k) for k in range(count)], np.arange(count) % 10, tuple("0123456789"), lambda i: noise
    )
    encoder = LatentEncoder(NoiseVAE()) if latents else None
    prepare(
        source, folder, make_plan(source, size, "center", channels, encoder, images=not latents), encoder, quiet=True
    )
    return DataConfig(source="prepared", path=str(folder))


def delivered(data: Dataset, threads: int, batches: int) -> float:
    """Samples per second, of batches in training order."""

    def read(step: int) -> None:
        data.batch(rows(0, step * BATCH, BATCH, len(data)), 0, step)

    began = time.perf_counter()
    for _ in prefetch(read, range(batches), threads, threads):
        pass
    return batches * BATCH / (time.perf_counter() - began)


def share(config: Config, workers: int, out: Path) -> tuple[float, float]:
    """(share of the time spent waiting, samples per second) over a short run, without its first entry."""
    steps = STEPS[config.recipe]
    config = replace(
        config,
        data=replace(config.data, workers=workers),
        training=replace(config.training, steps=2 * steps, batch=16, threads=1),
        log=replace(config.log, every=steps, preview_rows=1, diagnose_samples=10),
        eval=replace(config.eval, every=0),
    )
    train(config, out, quiet=True)
    last = [row for row in map(json.loads, (out / "metrics.jsonl").open()) if "time/data" in row][-1]
    return last["time/data"], last["images_per_second"]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{os.cpu_count()} CPU cores, load average {os.getloadavg()[0]:.1f}")
        for shown, count, size, channels, latents in (
            ("pictures 32x32, grey", 2048, 32, 1, False),
            ("pictures 256x256, RGB", 256, 256, 3, False),
            ("latents 4x32x32", 256, 256, 3, True),
        ):
            data = open_dataset(made(folder / shown, count, size, channels, latents), size)
            speeds = [delivered(data, threads, max(4, count // BATCH // 2)) for threads in (0, 1, 2)]
            print(
                f"{shown:<24} samples/s, {BATCH} a batch: "
                + "  ".join(f"{n} ahead {s:8,.0f}" for n, s in enumerate(speeds))
            )
        for recipe_name in STEPS:
            base = recipe(recipe_name)
            size = base.sample.size
            config = replace(base, data=made(folder / recipe_name, 1024, size, 1))
            for workers in (0, 2):
                waiting, speed = share(config, workers, folder / f"{recipe_name}-{workers}")
                print(
                    f"train {recipe_name:<18} {workers} workers: {waiting:6.2%} of the time waiting, {speed:6.1f} samples/s"
                )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
