"""A configuration on the command line: where it starts, what is over it, and the options that say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import catgan
from catgan.cli import main
from catgan.cli.configuration import as_options, expanded, starting_point
from catgan.config import Config
from catgan.config_io import dump_yaml, from_dict
from catgan.data.datasets import Images
from catgan.errors import UserError
from catgan.recipes import recipe

Output = pytest.CaptureFixture[str]
Trained = Callable[[list[str]], Config]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """What `catgan train` would train with arguments."""

    def run(argv: list[str]) -> Config:
        seen: list[Config] = []
        monkeypatch.setattr("catgan.training.run.train", lambda config, *_, **__: seen.append(config))
        assert main(["train", *argv]) == 0
        return seen[0]

    return run


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("digits", {}),
        ("digits", {"training": {"batch": 32, "recompute": True, "reuse_fakes": False}, "sample": {"vae": "a b"}}),
        ("digits", {"objective": {"penalty_end": None, "penalty": 1e-5, "consistency_weights": [0.5, 1]}}),
        ("digits", {"sample": {"scales": [4, 8]}, "discriminator": {"patches": [2, 4]}, "generator": {"depth": 2}}),
        ("cat-h2", {"training": {"micro_batch": 32, "parallel": "fsdp2"}, "checkpoint": {"keep_steps": [5, 6]}}),
        ("fashion-mnist", {"checkpoint": {"keep_steps": []}, "encoder": {"path": None}}),
    ],
)
def test_options_make_the_same_configuration_again(name: str, changes: dict[str, Any], trained: Trained) -> None:
    config = from_dict(changes, recipe(name))
    assert trained([name, *as_options(config)]) == config


def test_options_name_only_what_differs_by_the_shortest_names() -> None:
    config = from_dict({"training": {"batch": 32, "recompute": True}}, recipe("digits"))
    assert as_options(config) == ["--batch", "32", "--training.recompute"]


def test_a_start_is_a_recipe_a_run_a_checkpoint_or_an_export(tiny_config: Config, tmp_path: Path) -> None:
    data = Images(np.zeros((8, 1, 8, 8), np.float32), np.arange(8) % 3, ("ant", "bee", "cat"))
    config = from_dict({"training": {"steps": 1}}, tiny_config)
    run = catgan.train(config, tmp_path / "run", dataset=data, quiet=True)
    assert main(["export", str(run), str(tmp_path / "exported")]) == 0
    assert starting_point("digits") == recipe("digits")
    for place in (run, run / "checkpoints" / "step-00000001", tmp_path / "exported"):
        assert starting_point(str(place)) == config
    with pytest.raises(UserError, match="no run directory"):
        starting_point(str(tmp_path))
    with pytest.raises(UserError, match="nowhere does not exist: must be a recipe"):
        starting_point("nowhere")


def test_info_takes_options_over_a_file_over_the_recipe(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "wide.yaml").write_text("generator: {width: 128, heads: 4}\ntraining: {batch: 32}\n")
    argv = ["info", "digits", "--config", str(tmp_path / "wide.yaml"), "--batch", "16", "--json"]
    assert main(argv) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["generator"]["width"], result["training"]["batch"]) == (128, 16)


def test_info_says_what_a_run_costs_in_floating_point_operations(capsys: Output) -> None:
    assert main(["info", "digits"]) == 0
    said = capsys.readouterr().out
    assert "1.39e13 FLOPs (6.96e12 multiply-accumulates)" in said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["info"], "the recipe or run comes first: catgan info RECIPE"),
        (["plan", "--gpus", "8"], "the recipe or run comes first: catgan plan RECIPE --gpus 8"),
        (["info", "digits", "--generator.widht", "8"], "did you mean --generator.width"),
        (["info", "digits", "--generator.width", "66"], "generator.width is 66: must be a positive multiple of 4"),
        (["info", "digits", "--config", "fashion.yaml"], "fashion.yaml is for recipe fashion-mnist, not digits"),
    ],
)
def test_mistakes_get_one_line(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fashion.yaml").write_text(dump_yaml(recipe("fashion-mnist")))
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--training.compile"], ["--training.compile", "True"]),
        (["--training.compile", "--batch", "4"], ["--training.compile", "True", "--training.batch", "4"]),
        (["--training.no-compile", "--seed=3"], ["--training.compile", "False", "--training.seed=3"]),
        (["--training.compile", "None"], ["--training.compile", "None"]),
        (["--training.compile", "false", "--steps", "3"], ["--training.compile", "False", "--training.steps", "3"]),
        (["--training.compile=true"], ["--training.compile", "True"]),
        (["--training.no_compile"], ["--training.compile", "False"]),
        (["--training.compile=sometimes"], ["--training.compile", "sometimes"]),
        (["--training.no-reuse-fakes"], ["--training.no-reuse-fakes"]),
    ],
)
def test_compiling_is_a_flag_that_may_have_a_value(given: list[str], expected: list[str]) -> None:
    assert expanded(given) == expected


def test_blocks_are_compiled_on_cuda_unless_something_else_is_asked_for(tiny_config: Config) -> None:
    found = {
        choice: [from_dict({"training": {"compile": choice}}, tiny_config).compiles(d) for d in ("cuda", "cpu")]
        for choice in (None, True, False)
    }
    assert found == {None: [True, False], True: [True, True], False: [False, False]}
