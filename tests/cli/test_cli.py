"""The command line as people meet it: quick help, one-line errors, files that open."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import catgan
from catgan.cli import main
from catgan.cli.main import COMMANDS
from catgan.config import Config
from catgan.data.datasets import Images


@pytest.fixture(scope="module")
def run(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    data = Images(np.zeros((9, 1, 8, 8), np.float32), np.arange(9) % 3, ("ant", "bee", "cat"))
    config = dataclasses.replace(tiny_config, training=dataclasses.replace(tiny_config.training, steps=2))
    return catgan.train(config, out, dataset=data, quiet=True)


def call(*argv: object) -> int:
    return main([str(a) for a in argv])


def test_importing_the_package_takes_less_than_a_tenth_of_a_second_and_loads_no_other() -> None:
    code = """if True:
        import sys, time
        began, before = time.perf_counter(), set(sys.modules)
        import catgan
        seconds = time.perf_counter() - began
        others = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
        print(seconds, *others)
        """
    found = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() for _ in range(3)
    ]
    assert {name for _, *names in found for name in names} == {"catgan"}
    assert min(float(seconds) for seconds, *_ in found) < 0.1


def test_help_is_quick_and_does_not_load_torch() -> None:
    code = "import sys; from catgan.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0, done.stderr
        assert "catgan demo" in done.stdout
    assert min(seconds) < 0.5


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        call(command, "--help")
    assert f"catgan {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("paint", "command is paint: must be one of prepare, train"),
        ("smaple", "reproduce, demo; did you mean sample?"),
        (
            "train digitz",
            "recipe is digitz: must be one of cat-b2, cat-m2, cat-h2, cat-b2-pixels, gat-b2, gat-xl2, digits, fashion-mnist, pictures-32, "
            "pictures-64, pictures-128; did you mean digits?",
        ),
        ("info cat-x2", "cat-x2 does not exist: must be a recipe (cat-b2, cat-m2, "),
        ("info cat-x2", ", a run directory, a checkpoint, an exported folder or a shipped model (digits.sklearn, "),
        ("info gat-x2", "did you mean gat-xl2?"),
        ("info {tmp}/none", "none does not exist: must be a recipe"),
        ("train digits --training.stepz 3", "did you mean --training.steps"),
        ("train digits --steps many", "--training.steps"),
        (
            "train digits --generator.depth 7",
            "generator.depth is 7: must be divisible by the number of scales (3); use 6 or 9",
        ),
        ("info digits --generator.width 1000000000 --generator.heads 1", "out of memory: use a smaller batch"),
        ("train digits --sample.scales 4 2 8", "sample.scales is 4,2,8: must be increasing"),
        ("train digits --sample.scales 2 4 6", "sample.scales is 2,4,6: must be a list that ends at sample.size (8)"),
        ("train digits --sample.scales 2 5 8", "scale 1 is 5: must be divisible by its patch size (2)"),
        (
            "train digits --generator.width 64 --generator.heads 3",
            "generator.width is 64: must be divisible by generator.heads (3)",
        ),
        ("train digits --generator.width 12 --generator.heads 2", "head size (6) is divisible by 4"),
        ("train digits --seed -1", "training.seed is -1: must be in [0, 2^63)"),
        ("train digits --device tpu", "training.device is tpu"),
        ("train digits --out {tmp}/new --resume", "nothing to resume"),
        ("train digits --config {tmp}/no.yaml", "cannot read"),
        ("train fashion-mnist --data.path {tmp}/none --out {tmp}/new", "no such folder"),
        ("train fashion-mnist --data.path {tmp} --out {tmp}/new", "no train-images-idx3-ubyte"),
        ("train cat-b2 --data.path {tmp}/none --out {tmp}/new", "no such folder"),
        ("train digits --out /proc/none", "cannot write to /proc/none"),
        ("train digits --steps 1 --init-from {tmp}/none --out {tmp}/new", "does not exist"),
        ("sample {tmp}/none", "does not exist"),
        ("sample {run} --classes dog", "class is dog: must be a number from 0 to 2 or one of ant, bee, cat"),
        ("sample {run} --psi 1.5", "psi is 1.5: must be in [0, 1]"),
        ("sample {run} --seeds 9223372036854775808", "seed is 9223372036854775808: must be in [0, 2^63)"),
        ("sample {run} --seeds 1..3", "--seeds is 1..3"),
        ("sample {run} --sheet --seeds 3,7", "--seeds is 3,7: a sheet shows the first seeds unselected, must be 0-N"),
        ("sample {run} --sheet --format png", "--sheet is a page of its own: leave out --format"),
        ("sample {run} --sheet --stages", "--sheet is a page of its own: leave out --stages"),
        ("train --resume digits", "the recipe comes first: catgan train RECIPE"),
        ("sample {run} --out {run}/config.yaml", "cannot write"),
        (
            "sample {run} --format npz --count 3 --seeds 9223372036854775806 --out {tmp}/new",
            "seed is 9223372036854775808",
        ),
        ("sample {run} --seeds 0-9223372036854775807", "at most a million"),
        ("sample {run} --batch 0", "--batch is 0: must be at least 1"),
        ("sample {run} --out /proc/none", "cannot write"),
        ("sample {run} --vae {tmp}/none", "does not exist; give a folder with config.json"),
        ("export {run} {run}", "exists and is not empty: choose another folder"),
        ("export {run} /proc/none", "cannot write"),
        ("train digits --objective.representation 1 --out {tmp}/new", "discriminator.representation_dim is 0"),
        (
            "train digits --objective.representation 1 --discriminator.representation-dim 768 --out {tmp}/new",
            "encoder.path is not set",
        ),
        ("interpolate {run} --points 3", "--points is 3: must be at least two"),
        ("interpolate {run} --points a b", "point is a: must be CLASS:SEED"),
        ("diagnose {run} --samples 0", "--samples is 0"),
        ("demo --out {run}", "is a run of recipe digits on other data or scales: choose another --out"),
    ],
)
def test_mistakes_get_one_line_and_code_2(
    argv: str, said: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(p for p in run.rglob("*"))
    assert call(*argv.format(tmp=tmp_path, run=run).split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("catgan")
    lines = [line for line in error.splitlines() if not line.startswith("digits on")]
    assert len(lines) == 1
    assert not list(tmp_path.iterdir()), "something half-made was left"
    assert sorted(p for p in run.rglob("*")) == before


def test_info_counts_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("info", "cat-b2", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert round(result["generator"]["parameters"] / 1e6, 1) == 133.1
    assert round(result["discriminator"]["gmacs"], 1) == 30.5
    assert call("info", "cat-b2") == 0
    assert "133.1 M" in capsys.readouterr().out


def test_a_sheet_shows_every_class_and_seed_in_order(run: Path, tmp_path: Path) -> None:
    """Below is a line of words; without labels the tiles are at the left top, two pixels apart."""
    argv = ["sample", run, "--sheet", "--psi", "0.7", "--no-labels", "--out", tmp_path]
    assert call(*argv, "--seeds", "0-3") == 0
    assert call(*argv, "--seeds", "0-5", "--classes", "bee") == 0
    pipe = catgan.load(run)
    several, one = ("sheet-psi-0.7.png", "sheet-class-1-psi-0.7.png")
    for name, across, classes, seeds in ((several, 4, [0, 1, 2], range(4)), (one, 3, [1], range(6))):
        sheet = np.asarray(Image.open(tmp_path / name))
        for i, (c, s) in enumerate((c, s) for c in classes for s in seeds):
            y, x = (66 * n for n in divmod(i, across))
            tile = pipe([c], [s], psi=0.7).array[0, ..., 0].astype(int)
            assert np.abs(sheet[y : y + 64 : 8, x : x + 64 : 8] - tile).max() <= 1
    assert sheet[132:].min() < 128, "something is written below"


def test_sampling_writes_grids_single_pictures_and_stages(run: Path, tmp_path: Path) -> None:
    argv = ("sample", run, "--classes", "bee", "0", "--seeds", "0-2,7", "--stages", "--out", tmp_path)
    assert call(*argv, "--no-labels") == 0
    grid, stages = (Image.open(tmp_path / name) for name in ("grid.png", "stages.png"))
    assert grid.size == (2 * 64 + 2, 4 * 64 + 3 * 2)
    assert stages.size == (3 * 64 + 2 * 2, 8 * 64 + 7 * 2)
    before = (tmp_path / "grid.png").read_bytes()
    assert call(*argv) == 0
    assert (tmp_path / "grid.png").read_bytes() == before, "nothing is overwritten"
    named = Image.open(tmp_path / "grid-2.png")
    left, top = named.width - grid.width, named.height - grid.height
    assert left > 0
    assert top > 0
    assert np.array_equal(named.crop((left, top, *named.size)), grid)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["grid-2.png", "grid.png", "stages-2.png", "stages.png"]
    assert call("sample", run, "--format", "png", "--classes", "0-2", "--seeds", "4", "--out", tmp_path / "single") == 0
    assert sorted(p.name for p in (tmp_path / "single").iterdir()) == [f"class-{k}-seed-4.png" for k in range(3)]


USAGE = dict.fromkeys(("sample", "interpolate", "diagnose", "report", "compare", "export"), "RUN")


@pytest.mark.parametrize(
    ("command", "named"),
    (
        USAGE
        | {"invert": "RUN", "push": "RUN OWNER/NAME", "info": "RECIPE", "plan": "RECIPE", "prepare": "SOURCE DEST"}
    ).items(),
)
def test_usage_says_what_each_argument_is(command: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        call(command, "--help")
    usage = capsys.readouterr().out.partition("\n\n")[0]
    assert named in usage
    assert "STR" not in usage.replace("--vae {None}|STR", "")
    assert "PATH" not in usage.replace("--out PATH", "").replace("--out {None}|PATH", "")


def test_training_says_what_comes_next_and_shows_the_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = "--generator.width 16 --discriminator.width 16 --discriminator.depth 1 --log.diagnose-samples 10"
    assert call("train", "digits", "--steps", "2", "--batch", "4", *small.split(), "--out", tmp_path / "my run") == 0
    printed, shown = capsys.readouterr()
    assert f"next: catgan report '{tmp_path}/my run'" in printed
    last = json.loads((tmp_path / "my run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"loss D {last['discriminator/loss']:.3f} G {last['generator/loss']:.3f}" in shown


def test_sampling_an_npz(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("sample", run, "--format", "npz", "--count", "10", "--seeds", "100", "--out", tmp_path) == 0
    assert str(tmp_path / "samples.npz") in capsys.readouterr().out
    with np.load(tmp_path / "samples.npz") as file:
        assert file["arr_0"].shape == (10, 8, 8, 1)


def test_interpolation_makes_a_strip_and_a_gif(run: Path, tmp_path: Path) -> None:
    assert call("interpolate", run, "--points", "ant:0", "ant:1", "2:5", "--frames", "5", "--out", tmp_path) == 0
    assert Image.open(tmp_path / "strip.png").size == (5 * 64 + 4 * 2, 2 * 64 + 2)
    with Image.open(tmp_path / "walk.gif") as walk:
        assert walk.n_frames > 1  # type: ignore[attr-defined]
    assert call("interpolate", run, "--frames", "2", "--out", tmp_path) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["strip-2.png", "strip.png", "walk-2.gif", "walk.gif"]


def test_diagnosis_prints_and_writes_the_same_numbers(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("diagnose", run, "--samples", "30", "--json", "--out", tmp_path) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "diagnosis.json").read_text())
    assert len(printed["delta"]) == 2
    assert printed["A"][1] == pytest.approx(1)
    assert printed["protocol"]["samples"] == 30
    assert printed["protocol"]["down"] == "area"
    Image.open(tmp_path / "diagnosis.png").verify()
    assert call("diagnose", run, "--samples", "30", "--out", tmp_path) == 0
    assert "mean A without the last stage" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["diagnosis.json", "diagnosis.png"]


def test_attention_is_measured_on_generated_and_real_samples(
    tiny_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(
        tiny_config,
        sample=dataclasses.replace(tiny_config.sample, classes=10),
        discriminator=dataclasses.replace(tiny_config.discriminator, aggregated=True),
        training=dataclasses.replace(tiny_config.training, steps=1),
    )
    out = catgan.train(config, tmp_path / "run", quiet=True)
    assert call("diagnose", out, "--samples", "12", "--batch", "5", "--attention") == 0
    printed = capsys.readouterr().out
    assert "mean A without the last stage" in printed
    assert "mass that leaves its scale" in printed
    folder = out / "diagnosis"
    assert sorted(p.name for p in folder.iterdir()) == [
        "attention.json", "attention.png", "diagnosis.json", "diagnosis.png",
    ]  # fmt: skip
    Image.open(folder / "attention.png").verify()
    measured = json.loads((folder / "attention.json").read_text())
    for source in ("generated", "real"):
        assert len(measured[source]["layers"]) == 2
        assert 0 < measured[source]["off_diagonal"] < 1
    assert (measured["protocol"]["samples"], measured["protocol"]["real_samples"]) == (12, 12)


def test_attention_goes_on_without_the_runs_data(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run's three classes are not the digits that its configuration names."""
    assert call("diagnose", run, "--samples", "6", "--attention", "--json", "--out", tmp_path) == 0
    printed, said = capsys.readouterr()
    measured = json.loads((tmp_path / "attention.json").read_text())
    assert json.loads(printed) == json.loads((tmp_path / "diagnosis.json").read_text()) | {"attention": measured}
    assert measured["generated"]["layers"] == [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]] * 2
    assert "real" not in measured
    assert measured["protocol"]["real_samples"] == 0
    assert "attention on generated samples only" in said


def test_yaml_goes_under_options_and_over_the_recipe(tmp_path: Path) -> None:
    from catgan.config_io import load_yaml

    (tmp_path / "small.yaml").write_text(
        "generator: {depth: 3, width: 16}\ndiscriminator: {depth: 1, width: 16, head_dim: 8}\n"
        "training: {steps: 1, batch: 4, device: cpu, compile: false}\noptimizer: {lr_generator: 1e-3}\n"
        "log: {diagnose_samples: 10}\neval: {every: 0}\n"
    )
    assert call("train", "digits", "--config", tmp_path / "small.yaml", "--batch", "2", "--out", tmp_path / "run") == 0
    stored = load_yaml(tmp_path / "run" / "config.yaml")
    assert (stored.generator.depth, stored.training.batch, stored.optimizer.lr_generator) == (3, 2, 1e-3)
    (tmp_path / "bad.yaml").write_text("training: {stepz: 1}")
    assert call("train", "digits", "--config", tmp_path / "bad.yaml", "--out", tmp_path / "no") == 2
    assert not (tmp_path / "no").exists()
