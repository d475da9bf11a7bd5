"""`catgan evaluate` as people meet it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import catgan
from catgan.cli import main
from catgan.config import Config
from catgan.data.latents import Latents
from catgan.evaluation import classifier
from catgan.evaluation.reference import read_npz


def call(*argv: object) -> int:
    return main(["evaluate", *(str(a) for a in argv)])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def one_classifier(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shortened training, whose result all tests here share."""
    monkeypatch.setenv("CATGAN_CACHE", str(kept))
    monkeypatch.setattr(classifier, "FEWEST", 1)


@pytest.fixture(scope="module")
def run(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One step of training on all digits."""
    config = dataclasses.replace(
        tiny_config,
        sample=dataclasses.replace(tiny_config.sample, classes=10),
        training=dataclasses.replace(tiny_config.training, steps=1),
    )
    return catgan.train(config, tmp_path_factory.mktemp("evaluate") / "run", quiet=True)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "colours.npz"
    images = np.random.default_rng(0).integers(256, size=(40, 8, 8, 3), dtype=np.uint8)
    np.savez(path, arr_0=images, arr_1=np.arange(40) % 2)
    return path


def test_a_run_is_compared_with_its_data_and_the_result_lies_in_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(run, "--count", 60, "--save-reference", tmp_path / "digits.npz") == 0
    out, err = capsys.readouterr()
    (stored,) = (run / "evaluations").iterdir()
    assert stored.name.startswith("classifier-60-")
    assert str(stored) in out
    assert "run, step 1: 60 images" in out
    assert "reference: digits, 1,797 images" in out
    assert "classifier Frechet distance" in out
    assert "on held-out real images" in out
    assert not any(name in out for name in ("FID", "KID", "Inception"))
    assert "warning: 60 samples for 128 features" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits.npz"]
    result = json.loads(stored.read_text())
    assert set(result["metrics"]) == {
        "frechet_distance", "kid", "kid_std", "precision", "recall", "inception_score", "inception_score_std",
        "authenticity", "authenticity_real", "class_distance", "class_accuracy",
    }  # fmt: skip
    assert result["warnings"]
    assert read_npz(tmp_path / "digits.npz").statistics.count == 1797

    assert call(run, "--count", 60, "--metrics", "distance", "--reference", tmp_path / "digits.npz") == 2
    assert "give images as --reference, not statistics" in capsys.readouterr().err


def test_a_sheet_of_the_nearest_images_lies_beside_the_result(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    argv = (run, "--count", 20, "--features", "pixels", "--metrics", "authenticity", "--nearest-sheet", 3, "--out", out)
    assert call(*argv) == 0
    said = capsys.readouterr().out
    assert "result-nearest.png: closer to an image than real ones are: " in said
    stored = json.loads(out.read_text())["nearest"]
    assert len(stored["samples"]) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result-nearest.png", "result.json"]
    with Image.open(tmp_path / "result-nearest.png") as page:
        assert page.width > 5 * 64


def test_json_is_what_is_stored(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    checkpoint = run / "checkpoints" / "step-00000001"
    assert call(checkpoint, "--count", 200, "--metrics", "distance", "--json", "--psi", 0.5, "--out", out) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert list(printed["metrics"]) == ["frechet_distance"]
    assert (printed["protocol"]["psi"], printed["protocol"]["samples"]) == (0.5, 200)
    assert printed["warnings"] == []
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"], "unfinished work is gone"


def test_given_images_are_recorded_as_given(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = (colours, "--reference", colours, "--metrics", "distance", "class_accuracy", "--psi", 0.3, "--json")
    assert call(*argv) == 0
    protocol = json.loads(capsys.readouterr().out)["protocol"]
    assert (protocol["samples"], protocol["class_sampling"], protocol["weights"]) == (40, "as given", "none")
    assert protocol["psi"] == 1
    (stored,) = tmp_path.glob("evaluation-*.json")
    assert json.loads(stored.read_text())["metrics"]["frechet_distance"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("{colours}", "--reference is not set: given images need something to be compared with"),
        ("{tmp}/none", "does not exist or is no image source"),
        ("{colours} --reference {tmp}/none.npz", "none.npz does not exist or is no image source"),
        ("{run} --batch 0", "--batch is 0"),
        ("{run} --max-broken 2", "--max-broken is 2.0: must be in [0, 1]"),
        ("{run} --count 1", "samples is 1: must be at least 2"),
        ("{run} --psi 2", "psi is 2.0"),
        ("{run} --metrics fid", "--metrics"),
        ("{run} --metrics score", "score is now inception_score"),
        ("{run} --features classifier --reference {stats}", "trained on the reference's images"),
        ("{colours} --reference digits", "colour images, the reference grey ones"),
        (
            "{run} --features dinov2 --feature-weights {tmp}/none",
            "does not exist; give a folder with config.json and model.safetensors as --feature-weights",
        ),
        ("{run} --features inception --feature-weights {tmp}/none.pth", "cannot read"),
        ("{run} --nearest-sheet 0", "--nearest-sheet is 0: must be at least 1"),
        (
            "{run} --nearest-sheet 4 --metrics distance",
            "--nearest-sheet needs the metric authenticity, which is not in --metrics",
        ),
        ("{run} --nearest-sheet 4 --preset imagenet-fid50k", "authenticity, which is not in --preset imagenet-fid50k"),
        ("{run} --nearest-sheet 4 --repeats 2", "--nearest-sheet shows one measurement"),
        (
            "{colours} --nearest-sheet 4 --reference {stats}",
            "stats.npz has only mu and sigma: give images as --reference",
        ),
        ("{run} --preset imagenet-fid50k --count 10", "samples is 10, but --preset imagenet-fid50k fixes it to 50000"),
        ("{run} --preset imagenet-fid50k --psi 0.5", "psi is 0.5, but --preset imagenet-fid50k fixes it to 1.0"),
        ("{run} --preset imagenet-fid50k --features classifier", "features is classifier, but --preset"),
        ("{run} --preset imagenet-fid50k --weights generator", "weights is generator, but --preset"),
        ("{run} --preset imagenet-fid50k --class-sampling balanced", "class_sampling is balanced, but --preset"),
        ("{run} --preset imagenet-fid50k --metrics kid", "but --preset imagenet-fid50k fixes it to"),
        ("{colours} --preset imagenet-fid50k --reference {stats}", "measures 50,000 samples, here are 40"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    argv: str, said: str, run: Path, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    stats = tmp_path / "stats.npz"
    np.savez(stats, mu=np.zeros(2048), sigma=np.eye(2048, dtype=np.float32))
    monkeypatch.chdir(tmp_path)
    before = sorted(run.rglob("*"))
    assert call(*argv.format(tmp=tmp_path, run=run, colours=colours, stats=stats).split()) == 2
    error = capsys.readouterr().err
    assert said in error
    lines = [line for line in error.splitlines() if "lassifier" not in line or "catgan" in line[:7]]
    assert len([line for line in lines if line.startswith("catgan")]) == 1
    assert "Traceback" not in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stats.npz"]
    assert sorted(run.rglob("*")) == before


def test_a_generator_of_latents_needs_a_decoder(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(
        tiny_config,
        sample=dataclasses.replace(tiny_config.sample, channels=4),
        training=dataclasses.replace(tiny_config.training, steps=1),
    )
    data = Latents(np.ones((9, 8, 8, 8), np.float32), np.arange(9) % 3, ("a", "b", "c"))
    out = catgan.train(config, tmp_path / "run", dataset=data, quiet=True)
    assert call(out, "--reference", "digits") == 2
    assert "makes latents of 4 channels, not pixels" in capsys.readouterr().err


def test_metrics_that_statistics_cannot_give_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a feature space that needs no images; it is never asked."""
    from catgan.evaluation import opening

    class Space:
        name, channels, dim, classes, names_classes = "dinov2", 3, 5, 0, False

        def identity(self) -> str:
            return ""

    monkeypatch.setattr(opening, "DINOv2ClassToken", lambda *_: Space())
    np.savez(tmp_path / "stats.npz", mu=np.zeros(5), sigma=np.eye(5))
    argv = (run, "--features", "dinov2", "--reference", tmp_path / "stats.npz")
    for metric, said in (("kid", "has mean and covariance only"), ("inception_score", "leave inception_score out")):
        assert call(*argv, "--metrics", metric) == 2
        assert said in capsys.readouterr().err


def test_where_classes_are_missing_warnings_stand_in_place_of_the_number(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (run, "--metrics", "class_distance", "--features", "classifier", "--count", 5)
    assert call(*options, "--out", tmp_path / "one.json") == 0
    assert "no number: the warnings say why" in capsys.readouterr().out
    assert json.loads((tmp_path / "one.json").read_text())["metrics"] == {}
    assert call(*options, "--psi", 1, 0.5, "--repeats", 2, "--out", tmp_path / "four.json") == 0
    assert "no per-class distance: class 0 has fewer than 2 images" in capsys.readouterr().err
    assert json.loads((tmp_path / "four.json").read_text())["mean"] == {}


def test_a_mean_is_over_the_repetitions_and_of_what_all_of_them_gave(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 45 samples at random, some seeds leave a class with one."""
    options = ("--metrics", "class_distance", "distance", "--features", "classifier", "--count", 45)
    assert call(run, *options, "--repeats", 6, "--out", tmp_path / "six.json") == 0
    content = json.loads((tmp_path / "six.json").read_text())
    assert len({len(r["metrics"]) for r in content["results"]}) == 2, "else this shows nothing"
    assert list(content["mean"]) == list(content["deviation"]) == list(content["names"]) == ["frechet_distance"]


# -- several measurements ----------------------------------------------------------------------------------------------


def test_several_psi_make_a_curve_of_the_same_seeds(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--metrics", "distance", "--features", "classifier", "--count", 60)
    assert call(run, *options, "--psi", 1, 0.5, "--out", tmp_path / "curve.json") == 0
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "curve.json").read_text())
    assert content["psi"] == [1.0, 0.5]
    assert [r["protocol"]["psi"] for r in content["results"]] == [1.0, 0.5]
    assert [r["protocol"]["first_seed"] for r in content["results"]] == [0, 0]
    assert content["deviation"] == {"frechet_distance": [None, None]}
    assert call(run, *options, "--psi", 0.5, "--out", tmp_path / "one.json", "--json") == 0
    alone = json.loads(capsys.readouterr().out)["metrics"]["frechet_distance"]
    assert content["mean"]["frechet_distance"][1] == alone
    assert f"{alone:.4g}" in out
    with Image.open(tmp_path / "curve.png") as picture:
        assert picture.width > 300


def test_a_curve_lies_beside_the_evaluations_and_each_psi_counts_once(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--metrics", "distance", "--features", "classifier", "--count", 40)
    assert call(run, *options, "--psi", 1, 0.5) == 0
    assert [p.suffix for p in sorted((run / "curves").iterdir())] == [".json", ".png"]
    assert main(["report", str(run)]) == 0
    assert call(run, *options, "--psi", 1, 1) == 2
    assert "psi is 1.0 1.0: must be each value once" in capsys.readouterr().err


def test_repetitions_have_seeds_of_their_own(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--metrics", "distance", "--features", "classifier", "--count", 40)
    assert call(run, *options, "--repeats", 3, "--out", tmp_path / "three.json") == 0
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "three.json").read_text())
    values = [r["metrics"]["frechet_distance"] for r in content["results"]]
    assert [r["protocol"]["first_seed"] for r in content["results"]] == [0, 40, 80]
    assert len(set(values)) == 3
    assert content["mean"]["frechet_distance"] == [pytest.approx(np.mean(values))]
    assert content["deviation"]["frechet_distance"] == [pytest.approx(np.std(values, ddof=1))]
    assert "means and sample deviations over 3 times 40 seeds" in out


def test_bytes_are_rounded_or_floored_as_asked_for(run: Path, tmp_path: Path) -> None:
    found = []
    for rounding in ("round", "floor"):
        out = tmp_path / f"{rounding}.json"
        assert call(run, "--metrics", "distance", "--count", 40, "--rounding", rounding, "--out", out) == 0
        found.append(json.loads(out.read_text()))
    assert [r["protocol"]["rounding"].partition("(")[0] for r in found] == ["round", "floor"]
    assert found[0]["metrics"] != found[1]["metrics"]


def test_given_images_have_no_psi_and_no_seeds(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (("--repeats", 2), ("--psi", 1, 0.5)):
        assert call(colours, "--reference", colours, *options) == 2
        assert "need a generator, not given images" in capsys.readouterr().err
