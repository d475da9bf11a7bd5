"""Measuring changes nothing of what is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from catgan.bench.ceiling import Ceiling, shapes
from catgan.bench.cold import first_step
from catgan.bench.meters import Clock
from catgan.bench.parts import LOADER, MeasuredStep, inputs, loader_part, sampling_part, training_part
from catgan.config import Config
from catgan.config_io import dump_yaml
from catgan.data.datasets import digits
from catgan.errors import UserError
from catgan.objective import default_objective
from catgan.recipes import recipe
from catgan.training.step import Step

CPU = torch.device("cpu")


def test_a_measured_step_trains_as_any_other(tiny_config: Config) -> None:
    x, y = inputs(tiny_config, CPU)
    measured, step = MeasuredStep(tiny_config, CPU), Step(tiny_config, default_objective(tiny_config), CPU)
    for i in range(2):
        training_part(measured, x, y).run(Clock(CPU))
        step.run(i, x, y)
    for name in ("generator", "discriminator", "ema"):
        ours, theirs = getattr(measured, name).state_dict(), getattr(step, name).state_dict()
        assert all(torch.equal(ours[k], theirs[k]) for k in theirs)


def test_the_ceiling_is_the_fastest_product_of_the_models_shapes(tiny_config: Config) -> None:
    ceiling = Ceiling(tiny_config, MeasuredStep(tiny_config, CPU), Clock(CPU))
    for _ in range(3):
        ceiling.measure()
    found = ceiling.description()
    assert all(len(p["runs"]) == 3 for p in found["products"])
    assert found["gflops"] == max(p["gflops"] for p in found["products"]) > 0
    assert found["shape"] in [p["shape"] for p in found["products"]]


def test_shapes_are_tokens_of_the_batch_by_the_linear_layers(tiny_config: Config) -> None:
    found = shapes(tiny_config, MeasuredStep(tiny_config, CPU))
    rows = [
        8 * 16,
        (8 + 8 + 2 + 2) * ((1 + 1) + (4 + 1) + (16 + 1)),
    ]  # the second: real, fake and their penalised quarters
    assert found == [(n, *s) for n in rows for s in ((16, 48), (16, 96), (48, 16))]


def test_sampling_and_loading_take_time_per_batch(tiny_config: Config) -> None:
    step = MeasuredStep(tiny_config, CPU)
    assert sampling_part(step, 5).run(Clock(CPU))["sampling, batch 5"] > 0
    assert loader_part(recipe("digits"), digits(), pinned=False).run(Clock(CPU))[LOADER] > 0


@pytest.mark.slow
def test_a_first_step_is_timed_in_a_process_of_its_own(
    tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # compiling takes minutes
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(tiny_config))
    assert first_step(path, tmp_path / "cache") > 0
    path.write_text("training: {device: 3}")
    with pytest.raises(UserError, match=r"compiled training did not start: .*training\.device"):
        first_step(path, tmp_path / "cache")
