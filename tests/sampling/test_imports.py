"""Sampling loads what samples: no trainer, no evaluation, no pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import catgan
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images

ABOVE = ("catgan.training", "catgan.evaluation", "catgan.report", "catgan.bench", "catgan.demo")


def test_the_command_loads_nothing_above_sampling(tiny_config: Config, tmp_path: Path) -> None:
    data = Images(np.zeros((9, 1, 8, 8), np.float32), np.arange(9) % 3, ("ant", "bee", "cat"))
    run = catgan.train(from_dict({"training": {"steps": 1}}, tiny_config), tmp_path / "run", dataset=data, quiet=True)
    assert catgan.load(run).save_pretrained(tmp_path / "model", discriminator=True)
    code = (
        "import sys; from catgan.cli import main\n"
        "assert main(['sample', sys.argv[1], '--stages', '--out', sys.argv[2]]) == 0\n"
        f"sys.exit(' '.join(m for m in sys.modules if m.startswith({ABOVE!r})))"
    )
    for source in ("run", "model"):
        argv = [sys.executable, "-c", code, str(tmp_path / source), str(tmp_path / "samples" / source)]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.stderr.strip() == ""
        assert (tmp_path / "samples" / source / "grid.png").is_file()
