"""From a run to a shipped model: rounded weights that give the run's pictures, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import catgan
from catgan import shipped
from catgan.checkpoint import export
from catgan.cli import main
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images
from catgan.errors import UserError
from catgan.sampling import shipping

TOLD = ["--licence", "CC0", "--trained-on", "Noise of our own."]
RESULT = {"metrics": {"kid": 1.0}, "names": {"kid": "KID"}, "protocol": {"samples": 9}, "seconds": 1.0}


@pytest.fixture(scope="module")
def run(evaluated_run: Callable[..., Path]) -> Path:
    return evaluated_run({str(step): RESULT | {"step": step} for step in (1, 2)})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where models are shipped to."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "shipped")
    return tmp_path / "shipped"


def ship(run: Path, folder: Path, *more: str, name: str = "digits.noise") -> int:
    return main(["ship", str(run), name, "--out", str(folder), *more])


def test_weights_are_stored_in_half_the_bytes_and_give_the_runs_pictures(run: Path, folder: Path) -> None:
    assert ship(run, folder, *TOLD) == 0
    about, made = shipped.about("digits.noise"), folder / "digits.noise"
    assert (about.licence, about.trained_on, about.weights["precision"]) == ("CC0", "Noise of our own.", "float16")
    assert about.evaluations == [{k: RESULT[k] for k in ("metrics", "names", "protocol")}], "of this step alone"
    assert about.golden.classes == (0, 1, 2)
    assert "\n# digits.noise, step 2\n" in (made / "README.md").read_text(), "not the name of the run's folder"
    tensors = load_file(made / "model.safetensors")
    names = {name for name, _ in catgan.load(run).generator.named_parameters()}
    assert {name for name, t in tensors.items() if t.dtype == torch.float16} == names
    expected = shipping.golden_pictures(catgan.load(run), about.golden)
    assert expected.shape == (16, 24, 1)
    assert np.array_equal(shipping.stored_pictures(made), expected)
    assert shipping.levels(shipping.golden_pictures(catgan.load(made), about.golden), expected) <= 2


def test_replacing_keeps_licence_and_data(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ship(run, folder) == 2
    assert "--licence is not set: there is no digits.noise yet" in capsys.readouterr().err
    assert ship(run, folder, *TOLD, "--commit", "abc") == 0
    assert ship(run, folder, "--precision", "float32") == 0
    about = shipped.about("digits.noise")
    assert (about.licence, about.trained_on) == ("CC0", "Noise of our own.")
    assert about.weights == {"precision": "float32", "difference": 0, "compared": shipping.COMPARED}
    assert [p.name for p in folder.iterdir()] == ["digits.noise"]


def test_weights_that_give_other_pictures_are_refused_and_the_old_ones_stay(
    run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ship(run, folder, *TOLD) == 0
    before = {p.name: p.read_bytes() for p in (folder / "digits.noise").iterdir()}
    write = export.save_tensors

    def coarse(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        write(path, {k: t if t.ndim < 2 else (t * 2).round() / 2 for k, t in tensors.items()})

    monkeypatch.setattr(export, "save_tensors", coarse)
    assert ship(run, folder) == 2
    assert "golden samples differ by" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in (folder / "digits.noise").iterdir()} == before
    assert [p.name for p in folder.iterdir()] == ["digits.noise"]


def test_other_weights_do_not_pass_for_these(run: Path) -> None:
    pipe = catgan.load(run)
    golden = shipping.golden_of(pipe)
    pictures = shipping.golden_pictures(pipe, golden)
    shipping.check_golden(pipe, golden, pictures)
    with pytest.raises(UserError, match="golden samples differ in size"):
        shipping.check_golden(pipe, golden, pictures[:8])
    pictures[0, 0] ^= 128
    with pytest.raises(UserError, match="golden samples differ by 128 of 255 levels: must be at most 2"):
        shipping.check_golden(pipe, golden, pictures)


@pytest.mark.parametrize("name", ["digits", "fashion-mnist.noise", "digits.a b", "digits/noise", "digits..", "noise"])
def test_a_name_is_the_runs_recipe_and_a_word(
    name: str, run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ship(run, folder, *TOLD, name=name) == 2
    assert "must be digits.TAG" in capsys.readouterr().err
    assert not folder.exists()


def test_what_was_never_measured_is_not_shipped(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (run / "evaluations").rename(tmp_path / "aside")
    try:
        assert ship(run, folder, *TOLD) == 2
    finally:
        (tmp_path / "aside").rename(run / "evaluations")
    assert "has no evaluation of step 2: catgan evaluate" in capsys.readouterr().err


def test_the_record_has_the_runs_whose_weights_it_started_from(
    run: Path, folder: Path, tiny_config: Config, tmp_path: Path
) -> None:
    noise = np.zeros((9, 1, 8, 8), np.float32)
    data = Images(noise, np.arange(9) % 3, ("ant", "bee", "cat"))
    config = from_dict({"training": {"steps": 1, "init_from": str(run)}}, tiny_config)
    tuned = catgan.train(config, tmp_path / "tuned", dataset=data, quiet=True)
    (tuned / "evaluations").mkdir()
    (tuned / "evaluations" / "1.json").write_text(json.dumps(RESULT | {"step": 1}))
    assert ship(tuned, folder, *TOLD) == 0
    first, second = shipped.about("digits.noise").record["command"].split("; then ")
    assert first.startswith("catgan train digits")
    assert "--steps 2" in first
    assert "--steps 1" in second
    assert f"--init-from {run}" in second
