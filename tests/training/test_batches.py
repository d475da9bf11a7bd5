"""The position in the data is counted in samples: a resumed run reads on where it was, whatever the batch is now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor
from trainers import entries, finish, start

from catgan.checkpoint import reading as checkpoint
from catgan.config import Config
from catgan.data import rows
from catgan.data.datasets import Images
from catgan.training import train


class Noted(Images):
    """Remembers which rows were asked for."""

    def __init__(self, images: Images) -> None:
        super().__init__(images.pixels.numpy(), images.labels.numpy(), images.class_names)
        self.read: list[int] = []

    def batch(self, rows: np.ndarray, seed: int, step: int, first: int = 0) -> tuple[Tensor, Tensor]:
        self.read += rows.tolist()
        return super().batch(rows, seed, step, first)


def test_another_batch_size_goes_on_at_the_same_sample(tiny_config: Config, data: Images, tmp_path: Path) -> None:
    """Also twice, past the end of an epoch (50 samples here), and with another micro-batch."""
    noted, run, read = Noted(data), tmp_path / "run", 0
    stages: list[dict[str, Any]] = [
        {"batch": 8, "steps": 4},
        {"batch": 4, "steps": 7},
        {"batch": 4, "micro_batch": 2, "steps": 8},
        {"batch": 12, "micro_batch": 5, "steps": 10},
    ]
    before = 0
    for stage in stages:
        config = replace(
            tiny_config,
            training=replace(tiny_config.training, **stage),
            data=replace(tiny_config.data, workers=0),
            log=replace(tiny_config.log, diagnose_every=1000, preview_every=1000),
        )
        train(config, run, dataset=noted, quiet=True, resume=bool(before))
        read += (stage["steps"] - before) * stage["batch"]
        before = stage["steps"]
        header = checkpoint.read_header(checkpoint.listed(run / "checkpoints")[-1])
        assert (header.step, header.samples) == (before, read)
    assert read == 72
    trained_on = noted.read[-read:]  # after the real samples of the previews
    assert trained_on == rows(tiny_config.training.seed, 0, read, len(data)).tolist()
    assert entries(run)[-1]["epoch"] == pytest.approx(read / len(data))


@pytest.mark.slow
def test_from_ddp_to_one_process_to_fsdp2(tmp_path: Path) -> None:
    """By the real command, with another batch each time, and the optimisers' state goes along."""
    run = tmp_path / "run"
    finish(start(run, "--steps", "4", world=2))
    finish(start(run, "--steps", "6", "--batch", "4", "--resume"))
    said = finish(start(run, "--steps", "9", "--batch", "16", "--training.parallel", "fsdp2", "--resume", world=2))
    assert "digits on 2 x cpu (fsdp2)" in said
    header, tensors = checkpoint.read(checkpoint.listed(run / "checkpoints")[-1])
    assert (header.step, header.samples) == (9, 4 * 8 + 2 * 4 + 3 * 16)
    updates = {float(t) for name, t in tensors.items() if name.endswith(".step")}
    assert updates == {9.0}
    losses = [row["generator/loss"] for row in entries(run)]
    assert len(losses) == 9
    assert np.isfinite(losses).all()
