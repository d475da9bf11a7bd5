"""The metrics beside torch-fidelity's own command line: the script on few pictures, and its formulas."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import parity
from catgan.data.datasets import Images
from catgan.evaluation.frechet import Moments, frechet_distance

RECORDS = sorted((Path(__file__).parents[2] / "records" / "parity").glob("*.json"))


@pytest.mark.slow  # torch-fidelity takes the eigenvalues of a general 2048 x 2048 matrix
def test_an_npz_of_a_model_has_the_numbers_of_torch_fidelitys_command_line(
    some_digits: Callable[[int], Images], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = tmp_path / "pictures"
    pixels = ((some_digits(12).pixels.permute(0, 2, 3, 1).numpy() + 1) * 127.5).astype(np.uint8)
    parity.to_files(pixels, real)
    argv = [
        "--model",
        "digits",
        "--real",
        str(real),
        "--samples",
        "11",
        "--reals",
        "12",
        "--out",
        str(tmp_path / "out"),
    ]
    assert parity.main(argv) == 0
    found = json.loads((tmp_path / "out" / "digits.json").read_text())
    assert (tmp_path / "out" / "digits.md").read_text() == parity.table(found) + "\n"
    assert "| FID |" in capsys.readouterr().out
    for name, row in found["numbers"].items():
        if name != "inception_score_std":  # of parts of one or two pictures
            assert row["difference"] < 1e-5, name
        assert row["catgan"] == pytest.approx(row["formula"], rel=1e-5, abs=1e-9), name
    assert found["numbers"]["frechet_distance"]["catgan"] > 1


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_tables_of_records_say_what_the_records_do(path: Path) -> None:
    found = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == parity.table(found) + "\n"
    assert {"command", "commit", "machine", "versions", "torch_fidelity_command"} <= set(found)
    for name, row in found["numbers"].items():
        assert row["difference"] < 1e-5, name


@pytest.mark.filterwarnings("ignore::catgan.evaluation.frechet.SingularWarning")
@pytest.mark.parametrize("counts", [(40, 30), (5, 9)])
def test_the_formula_of_the_distance_needs_no_full_rank(counts: tuple[int, int]) -> None:
    draws = np.random.default_rng(0)
    x, y = (draws.normal(k, 1 + k, size=(n, 12)) for k, n in enumerate(counts))
    ours = frechet_distance(*(Moments.of(torch.from_numpy(side)).statistics for side in (x, y)))
    assert parity.frechet(x, y) == pytest.approx(ours, rel=1e-9)


def test_formulas_have_the_values_that_follow_from_their_definitions() -> None:
    logits = np.eye(20)[np.arange(200) % 20] * 1000.0  # sure of one of 20 classes each
    assert parity.score(logits, splits=1)["inception_score"] == pytest.approx(20)
    assert parity.score(np.zeros((200, 20)))["inception_score"] == pytest.approx(1)
    one, other = np.arange(8.0)[:, None], np.arange(8.0)[:, None] + 100
    assert parity.manifolds(one, np.concatenate([one, other])) == {"precision": 1.0, "recall": 0.5}


def test_the_kernel_distance_of_all_at_once_is_a_sum_over_pairs() -> None:
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(5, 3)), draws.normal(1, 1, size=(5, 3))

    def mean(a: np.ndarray, b: np.ndarray, others: bool) -> float:
        pairs = [(i, j) for i in range(5) for j in range(5) if not (others and i == j)]
        return float(np.mean([(a[i] @ b[j] / 3 + 1) ** 3 for i, j in pairs]))

    found = parity.kernel(x, y, 5, 2)
    assert found["kid"] == pytest.approx(mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False))
    assert found["kid_std"] == pytest.approx(0, abs=1e-12)


def test_a_difference_is_a_share_of_the_largest() -> None:
    assert parity.difference([1.0, 1.0, 1.0]) == 0
    assert parity.difference([0.0, 0.0]) == 0
    assert parity.difference([-2.0, -1.0]) == 0.5


def test_pictures_are_written_in_order(tmp_path: Path) -> None:
    parity.to_files(np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1).repeat(4, 1).repeat(4, 2), tmp_path / "a")
    assert [np.asarray(Image.open(p)).max() for p in sorted((tmp_path / "a").iterdir())] == [0, 1, 2]
