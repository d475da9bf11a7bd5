"""A run for the tests of what is made of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import catgan
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images


@pytest.fixture(scope="module")
def evaluated_run(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Two steps on noise in three classes, and results of evaluations by the names of their files."""

    def make(results: Mapping[str, Any]) -> Path:
        noise = np.random.default_rng(0).uniform(-1, 1, (9, 1, 8, 8)).astype(np.float32)
        data = Images(noise, np.arange(9) % 3, ("ant", "bee", "cat"))
        config = from_dict({"training": {"steps": 2}}, tiny_config)
        out = catgan.train(config, tmp_path_factory.mktemp("evaluated") / "run", dataset=data, quiet=True)
        (out / "evaluations").mkdir()
        for name, result in results.items():
            (out / "evaluations" / f"{name}.json").write_text(json.dumps(result))
        return out

    return make
