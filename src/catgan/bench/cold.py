"""How long compiled training takes to its first step: in a process that finds nothing compiled, and in the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from catgan.config import Config
from catgan.config_io import dump_yaml, load_yaml
from catgan.errors import UserError


def cold_start(config: Config) -> dict[str, float]:
    """Seconds from the start of a process to the end of its first step: with an empty cache, and a filled one.

    Raises UserError if the process fails.
    """
    config = replace(config, training=replace(config.training, compile=True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(dump_yaml(config))
        return {name: first_step(path, Path(folder) / "cache") for name in ("cold", "cached")}


def first_step(config: Path, cache: Path) -> float:
    """Seconds that a process with this compiler cache takes for its imports, networks and first step."""
    began = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-m", "catgan.bench.cold", str(config)],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        raise UserError(f"compiled training did not start: {(ran.stderr.splitlines() or ['no message'])[-1]}")
    return time.perf_counter() - began


def main(path: str) -> None:
    import torch

    from catgan.bench.parts import MeasuredStep, inputs
    from catgan.system.devices import pick_device

    config = load_yaml(Path(path))
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    device = pick_device(config.training.device)
    MeasuredStep(config, device).run(0, *inputs(config, device))
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main(sys.argv[1])
