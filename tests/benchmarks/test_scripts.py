"""Every benchmark that measures runs, on next to nothing, and prints what it promises. `plain.py` and `untrained.py` are libraries."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import attention
import distances
import loader
import sampling

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
TESTED_BESIDE = {"against_plain", "gpu_profile", "plain", "same_bits", "targets", "untrained"}  # in files of their own


def test_every_script_is_run_by_a_test() -> None:
    here = Path(__file__).read_text()
    for path in SCRIPTS.glob("*.py"):
        beside = (Path(__file__).parent / f"test_{path.stem}.py").exists() or path.stem in TESTED_BESIDE
        assert beside or re.search(rf"\b{path.stem}\.(main|py)\b", here), f"{path} is run by no test"


def test_attention_is_compared_for_each_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attention, "ROUNDS", 1)
    monkeypatch.setattr(attention, "SIZES", {"tiny": (2, 1, 8, (2, 5))})
    attention.main()
    assert re.search(r"tiny +7 tokens .* ratio \d", capsys.readouterr().out)


@pytest.mark.slow
def test_the_loader_is_measured_alone_and_in_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loader, "STEPS", {"digits": 1})
    monkeypatch.setattr(loader, "BATCH", 8)
    loader.main()
    said = capsys.readouterr().out
    assert re.findall(r"^(\w+) .*2 ahead +[\d,]+$", said, re.MULTILINE) == ["pictures", "pictures", "latents"]
    assert re.findall(r"train digits +(\d) workers: +[\d.]+% of the time waiting", said) == ["0", "2"]


@pytest.mark.slow
def test_preparing_is_timed() -> None:
    """prepare.py in a process of its own, since it forks."""
    command = [sys.executable, SCRIPTS / "prepare.py", "--count", "4"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pictures/s by the clock") == 3


def test_backends_of_sampling_are_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sampling, "ROUND", 0.001)
    monkeypatch.setitem(sys.modules, "openvino", None)
    argv = ["digits", "--batch", "1", "--only", "openvino", "--rounds", "1", "--out", str(tmp_path), "--count", "2"]
    monkeypatch.setattr(sys, "argv", ["sampling.py", *argv])
    sampling.main()
    said = capsys.readouterr().out
    assert "openvino: left out" in said
    assert re.search(r"eager +[\d.]+ ms +1.00 x eager", said)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["eager.npz", "eager.png"]


class Projection:
    """A feature space that costs nothing."""

    name, names_classes, channels, dim, classes = "classifier", True, 1, 6, 10

    def __init__(self) -> None:
        self.matrix = torch.randn(32 * 32, 10)

    def identity(self) -> str:
        return "projection"

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.flatten(1).float() / 255 @ self.matrix
        return x[:, :6], x


def test_distances_are_measured_for_each_degradation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for half in ("train", "t10k"):
        for kind, shape in (("images-idx3", (60, 28, 28)), ("labels-idx1", (60,))):
            values = np.random.default_rng(0).integers(256, size=shape) if len(shape) > 1 else np.arange(60) % 10
            header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
            (tmp_path / f"{half}-{kind}-ubyte").write_bytes(header + values.astype(np.uint8).tobytes())
    monkeypatch.setattr(distances, "open_features", lambda *_: Projection())
    options = ["--data-path", tmp_path, "--count", 40, "--reference-features", 30, "--kid-subsets", 2]
    argv = [str(a) for a in (*options, "--out", tmp_path / "made.json")]
    monkeypatch.setattr(sys, "argv", ["distances.py", *argv])
    assert distances.main() in (0, 1)  # of random images, some numbers may go the wrong way
    made = json.loads((tmp_path / "made.json").read_text())
    assert {name: len(rows) for name, rows in made["series"].items()} == {
        name: len(kind.strengths) + 1 for name, kind in distances.DEGRADATIONS.items()
    }
    assert made["series"]["noise"][-1]["frechet_distance"] > made["series"]["noise"][0]["frechet_distance"]
    assert "noise 0.8" in capsys.readouterr().out
