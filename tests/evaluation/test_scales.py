"""Scales chosen from the data."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from catgan.cli.main import main
from catgan.config_io import load_yaml, with_values
from catgan.data.datasets import Images, digits
from catgan.errors import UserError
from catgan.evaluation import scales
from catgan.evaluation.scales import auto_scales, chosen, floors
from catgan.pyramid import resize
from catgan.recipes import DIGITS


def test_the_floor_is_what_a_resolution_loses() -> None:
    data = digits()
    x = data.pixels[np.arange(1000) * len(data) // 1000]
    lost = (x - resize(resize(x, 2), 8)).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    found = floors(data, [1, 2, 4])
    assert found[2] == pytest.approx(lost.mean().item(), rel=1e-5)
    assert found[1] > found[2] > found[4] > 0


def test_large_pictures_are_looked_at_in_smaller_batches_and_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    data, sizes = digits(), [1, 2, 4]
    plain = floors(data, sizes)
    monkeypatch.setattr(scales, "NUMBERS", 7 * 4 * 64)
    assert floors(data, sizes) == pytest.approx(plain, rel=1e-5)
    monkeypatch.setattr(scales, "WORK", 300 * 4 * 64)
    asked: list[int] = []
    monkeypatch.setattr(data, "batch", lambda rows, *more: asked.extend(rows) or type(data).batch(data, rows, *more))
    assert floors(data, sizes) == pytest.approx(plain, rel=0.05)
    assert len(asked) == 300
    assert max(asked) > 0.99 * len(data) - 10


def test_the_scales_are_the_nearest_of_all_to_equal_steps() -> None:
    floor = {s: 0.9 * (1 - s / 16) ** 1.7 for s in range(1, 16)}
    found = chosen(floor, 16, (1, 2, 1, 4))

    def cost(scales: tuple[int, ...]) -> float:
        return sum((floor[s] - target) ** 2 for s, target in zip(scales, (0.75, 0.5, 0.25), strict=True))

    possible = [c for c in itertools.combinations(range(1, 16), 3) if c[1] % 2 == 0]
    assert found == (*min(possible, key=cost), 16)


def test_smooth_pictures_get_coarser_scales_than_sharp_ones() -> None:
    noise = torch.randn(200, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    sharp = Images(noise.clamp(-1, 1).numpy(), np.zeros(200), ("one",))
    smooth = Images(resize(resize(noise, 3), 16).clamp(-1, 1).numpy(), np.zeros(200), ("one",))
    config = with_values(DIGITS, {"sample.size": 16, "discriminator.patches": [1, 1, 2], "sample.scales": [4, 8, 16]})
    fine, coarse = auto_scales(config, sharp), auto_scales(config, smooth)
    assert fine[-1] == coarse[-1] == 16
    assert all(a < b for a, b in zip(coarse[:-1], fine[:-1], strict=True))


def test_scales_are_divisible_by_their_patches() -> None:
    assert all(s % 2 == 0 for s in auto_scales(DIGITS, digits()))


def test_too_many_scales_for_the_patches_are_refused() -> None:
    with pytest.raises(UserError, match=r"no 3 scales below 8 that discriminator\.patches \(4, 4, 4, 4\) divide"):
        chosen(dict.fromkeys(range(1, 8), 0.5), 8, (4, 4, 4, 4))


def test_one_scale_needs_no_data() -> None:
    assert chosen({}, 8, (2,)) == (8,)


def test_the_command_line_chooses_scales_from_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    short = ["--steps", "1", "--batch", "4", "--log.diagnose-samples", "4", "--sample.scales", "auto"]
    assert main(["train", "digits", "--out", str(out), *short]) == 0
    assert "scales from the data: 4 6 8" in capsys.readouterr().err
    assert load_yaml(out / "config.yaml").sample.scales == auto_scales(DIGITS, digits()) == (4, 6, 8)
