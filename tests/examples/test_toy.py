from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import toy
from catgan.evaluation.alignment import alignment
from toy_report import table

SCRIPT = Path(__file__).parents[2] / "examples" / "toy.py"
LEVELS = [0.64**j for j in range(4)]  # variance of each level
NOISE = 0.05**2


def test_signals_are_centred_and_have_the_variance_of_their_levels_and_noise() -> None:
    x = toy.signals(0, 0, 20_000)
    assert x.shape == (20_000, 16)
    assert x.mean().item() == pytest.approx(0, abs=0.03)
    assert x.var(0).numpy() == pytest.approx(sum(LEVELS) + NOISE, rel=0.05)
    assert x.var().item() == pytest.approx(sum(LEVELS) + NOISE, rel=0.02)


def test_signals_depend_on_seed_and_position_alone() -> None:
    assert torch.equal(toy.signals(1, 2, 5), toy.signals(1, 2, 5))
    assert not torch.equal(toy.signals(1, 2, 5), toy.signals(1, 3, 5))
    assert not torch.equal(toy.signals(1, 2, 5), toy.signals(2, 2, 5))


def test_the_pyramid_takes_means_over_blocks_stage_by_stage() -> None:
    h = torch.stack([torch.arange(16.0) + 100 * k for k in range(4)])[:, None]
    x = toy.Pyramid()(h)
    assert [x_k.shape for x_k in x] == [(1, 2), (1, 4), (1, 8), (1, 16)]
    assert x[0].tolist() == [[3.5, 11.5]]
    assert x[1].tolist() == [[101.5, 105.5, 109.5, 113.5]]
    assert torch.equal(x[3], h[3])


def test_enlarged_signals_come_down_unchanged() -> None:
    pyramid, x = toy.Pyramid(), toy.signals(0, 0, 3)
    for k, x_k in enumerate(pyramid(x)):
        torch.testing.assert_close(pyramid(pyramid.enlarge(x_k))[k], x_k)


def test_real_signals_lie_on_the_floor_which_is_what_means_over_blocks_lose() -> None:
    x = toy.signals(0, 0, 20_000)
    values = alignment(x.expand(4, -1, -1), toy.Pyramid())
    assert values["excess"].abs().max() == 0
    lost = [(x - toy.Pyramid().enlarge(x_k)).square().mean().item() for x_k in toy.Pyramid()(x)]
    # The mean over a block that holds m independent pieces of a level keeps 1 / m of the level's variance.
    expected = [LEVELS[2] / 2 + LEVELS[3] * 3 / 4 + NOISE * 7 / 8, LEVELS[3] / 2 + NOISE * 3 / 4, NOISE / 2, 0]
    assert lost == pytest.approx(expected, rel=0.03)


def test_a_logit_depends_on_its_own_stage_alone() -> None:
    h = torch.randn(4, 3, 16, requires_grad=True)
    d = toy.Discriminator()(h)
    assert d.shape == (3, 4)
    for k in range(4):
        (gradient,) = torch.autograd.grad(d[:, k].sum(), h, retain_graph=True)
        assert gradient.flatten(1).any(1).tolist() == [j == k for j in range(4)]


def test_mmd_is_about_zero_for_equal_distributions_only() -> None:
    x, same = toy.signals(0, 0, 1000), toy.signals(0, 1, 1000)
    assert abs(toy.mmd2(same, x)) < 0.002
    assert toy.mmd2(same + 0.5, x) > 0.01
    assert toy.mmd2(same * 0.5, x) > 0.01


def test_a_training_is_finite_and_a_function_of_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "SAMPLES", 50)

    def numbers(weight: float, seed: int, steps: int) -> list[dict[str, float]]:
        return toy.train(weight, seed, steps, every=20)["rows"]

    rows = numbers(0.1, 0, steps=30)
    assert [row["step"] for row in rows] == [20, 30]
    assert all(math.isfinite(v) for row in rows for v in row.values())
    assert numbers(0.1, 0, steps=30) == rows
    first = numbers(0.1, 0, steps=2)
    assert numbers(0.1, 1, steps=2) != first
    assert numbers(0.0, 0, steps=2) != first


def test_the_table_shows_means_and_deviations_over_seeds() -> None:
    runs = [
        {"lambda": w, "CPU seconds": 2.0, "rows": [{"R_0": 9.0}, {"R_0": w + s}]} for w in (0.0, 5.0) for s in (1, 3)
    ]
    lines = [line.split() for line in table(runs, {"R_0": 0.25}).splitlines()]
    assert lines[1] == ["R_0", "0.250", "2.000", "±", "1.414", "7.000", "±", "1.414"]
    assert lines[2] == ["CPU", "seconds", "2", "±", "0", "2", "±", "0"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_script_prints_its_table_and_writes_its_files(tmp_path: Path) -> None:
    done = run(
        "--seeds", "1", "--steps", "3", "--every", "2", "--consistency", "0", "0.1", "--out", str(tmp_path / "o")
    )
    assert done.returncode == 0, done.stderr
    assert "lambda = 0.1" in done.stdout
    record = json.loads((tmp_path / "o" / "toy.json").read_text())
    assert [(r["lambda"], r["seed"]) for r in record["runs"]] == [(0.0, 0), (0.1, 0)]
    assert record["versions"]["torch"] == torch.__version__
    assert (tmp_path / "o" / "toy.png").read_bytes().startswith(b"\x89PNG")


def test_a_bad_value_is_one_line_and_no_training(tmp_path: Path) -> None:
    done = run("--steps", "0", "--out", str(tmp_path / "o"))
    assert done.returncode == 1
    assert done.stderr == "toy.py: error: --steps is 0: must be at least 1\n"
    assert not (tmp_path / "o").exists()
