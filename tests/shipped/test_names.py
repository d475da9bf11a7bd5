"""Models that come with the package: found by name from anywhere, told apart from folders, whole in what is installed."""

from __future__ import annotations

import json
import shutil
import socket
import tomllib
from pathlib import Path

import pytest

import catgan
from catgan import shipped
from catgan.cli import main
from catgan.errors import UserError
from catgan.evaluation.opening import open_samples
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.sources import DatasetImages, Generated
from catgan.recipes import RECIPES

ROOT = Path(__file__).parent.parent.parent
FILES = {
    "README.md", "config.json", "discriminator.safetensors", "golden.png", "model.safetensors", "shipped.json",
}  # fmt: skip
Said = pytest.CaptureFixture[str]


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder outside the checkout, on a machine without a network."""

    def refuse(*_: object) -> None:
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    return tmp_path / "away"


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped digits that may be damaged, in place of what is shipped."""
    folder = tmp_path / "shipped"
    shutil.copytree(shipped.FOLDER / "digits.sklearn", folder / "digits.sklearn")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder / "digits.sklearn"


# -- what is shipped ---------------------------------------------------------------------------------------------------


def test_all_together_is_small() -> None:
    assert sum(shipped.about(name).bytes for name in shipped.names()) < 6e6


def test_the_default_tag_of_a_recipe_is_there() -> None:
    assert {name.partition(".")[0] for name in shipped.names()} == set(shipped.DEFAULT_TAGS) <= set(RECIPES)
    assert all(shipped.full_name(recipe) in shipped.names() for recipe in shipped.DEFAULT_TAGS)


@pytest.mark.parametrize("name", shipped.names())
def test_a_model_says_what_is_needed_to_use_and_to_believe_it(name: str) -> None:
    about = shipped.about(name)
    assert about.licence
    assert about.trained_on
    assert about.record["command"].startswith(f"catgan train {name.partition('.')[0]}")
    assert {"commit", "seed", "step", "machine", "catgan", "torch"} <= set(about.record)
    for evaluation in about.evaluations:
        assert evaluation["metrics"]
        assert {"samples", "psi", "features", "reference"} <= set(evaluation["protocol"])
    assert about.weights["difference"] <= about.golden.tolerance, "rounding weights leaves pictures as they were"
    sums = json.loads((shipped.FOLDER / name / "config.json").read_text())["sha256"]
    assert sums.keys() == {"model.safetensors", "discriminator.safetensors"}, "what loading compares"
    card = (shipped.FOLDER / name / "README.md").read_text()
    assert f"# {name}, step " in card
    assert about.licence in card
    assert about.trained_on in card
    assert "<" not in card, "nothing is left to be filled in"


@pytest.mark.parametrize("name", shipped.names())
def test_an_installed_package_has_all_files(name: str) -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["catgan"]
    packed = {path for pattern in patterns for path in (ROOT / "src/catgan").glob(pattern)}
    assert {path.name for path in (ROOT / "src/catgan/shipped" / name).iterdir()} == FILES
    assert {ROOT / "src/catgan/shipped" / name / file for file in FILES} <= packed


# -- names -------------------------------------------------------------------------------------------------------------


def test_commands_take_names_anywhere_without_a_network(away: Path, capsys: Said) -> None:
    few = ["--classes", "3", "8", "--seeds", "0"]
    for argv in (
        ["sample", "digits", *few],
        ["sample", "digits.sklearn", *few],
        ["interpolate", "digits", "--frames", "2"],
        ["diagnose", "digits", "--samples", "10", "--attention"],
        ["export", "digits", "mine"],
        ["info", "digits.sklearn"],
        ["models"],
    ):
        assert main(argv) == 0, capsys.readouterr().err
    assert "not the model" not in capsys.readouterr().err
    assert sorted(p.name for p in away.iterdir()) == ["diagnosis", "interpolation", "mine", "samples"]
    assert {p.name for p in (shipped.FOLDER / "digits.sklearn").iterdir()} == FILES, "nothing is written there"
    a, b = ((away / "samples" / name).read_bytes() for name in ("grid.png", "grid-2.png"))
    assert a == b


def test_a_name_is_evaluated_as_a_model_and_as_a_reference_it_is_data(away: Path) -> None:
    found = open_samples("digits", Protocol(samples=3), "cpu")
    assert isinstance(found, Generated)
    assert found.name == f"digits.sklearn, step {found.pipe.step}"
    assert isinstance(open_samples("digits:train", Protocol(samples=3), "cpu"), DatasetImages)
    assert len(found.pipe.open_data()) == 1797


def test_a_run_starts_from_a_name(away: Path, capsys: Said) -> None:
    argv = [
        "train",
        "digits",
        "--init-from",
        "digits",
        "--steps",
        "1",
        "--out",
        "tuned",
        "--log.diagnose-samples",
        "10",
    ]
    assert main(argv) == 0
    assert "starting from the weights of" in capsys.readouterr().err
    moved = catgan.load("tuned").generator.state_dict()["style_sum"] - catgan.load("digits").generator.style_sum
    assert 0 < moved.abs().max() < 1, "one step away"


def test_what_lies_here_wins_and_that_is_said_once(away: Path, capsys: Said) -> None:
    other = catgan.load("digits")
    for p in other.generator.parameters():
        p.data.zero_()
    other.save_pretrained("digits")
    assert capsys.readouterr().err == ""
    assert main(["evaluate", "digits", "--reference", "nowhere"]) == 2
    assert catgan.load("digits")([3], [0]).latents.abs().max() == 0
    said = capsys.readouterr().err
    assert said.count(f"digits is the one in {away}, not the model digits.sklearn that comes with catgan\n") == 1
    assert catgan.load("digits.sklearn")([3], [0]).latents.abs().max() > 0
    assert catgan.CATPipeline.from_pretrained("digits.sklearn").step == other.step


@pytest.mark.parametrize(
    "argv", [["sample"], ["evaluate"], ["diagnose"], ["interpolate"], ["train", "digits", "--init-from"]]
)
def test_an_unknown_name_gets_one_line_with_a_suggestion(argv: list[str], away: Path, capsys: Said) -> None:
    assert main([*argv, "digist"]) == 2
    said = capsys.readouterr().err
    assert "digist does not exist" in said
    assert f"a shipped model ({', '.join(shipped.names())}); did you mean digits?" in said
    (away / "runs" / "first").mkdir(parents=True)
    with pytest.raises(UserError, match=r"run directory, .* a shipped model .*; did you mean runs/first\?"):
        catgan.load("runs/fisrt")
    with pytest.raises(UserError, match=r"a shipped model \(.*\)$"):
        catgan.load("zebra")


def test_recipes_stay_recipes(away: Path, capsys: Said) -> None:
    (away / "digits").mkdir()
    assert main(["info", "digits", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["recipe"] == "digits"
    assert err == ""


# -- damage ------------------------------------------------------------------------------------------------------------


def test_another_format_gets_one_line(others: Path, capsys: Said) -> None:
    for file, said in (
        ("config.json", "has export format 99, this catgan reads"),
        ("shipped.json", "has format 99, this"),
    ):
        about = json.loads((others / file).read_text())
        (others / file).write_text(json.dumps(about | {"format": 99}))
        assert main(["models"] if file == "shipped.json" else ["sample", "digits"]) == 2
        assert said in capsys.readouterr().err
    (others / "shipped.json").write_text("{}")
    with pytest.raises(UserError, match=r"shipped.json is damaged"):
        shipped.about("digits.sklearn")


def test_models_are_listed_for_people_and_programs(capsys: Said) -> None:
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    for part in ("digits.sklearn, or digits\n", "MB, float16", "CC BY 4.0", "class accuracy 0.", "catgan train digits"):
        assert part in text
    assert main(["models", "--json"]) == 0
    assert [m["name"] for m in json.loads(capsys.readouterr().out)] == shipped.names()
