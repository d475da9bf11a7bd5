"""`catgan prepare`, and `catgan train --data` on what it made."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from catgan.checkpoint import reading as checkpoint
from catgan.cli import main
from catgan.cli.fitting import described, fitted
from catgan.cli.prepare import PrepareOptions, open_encoder
from catgan.cli.train import on_data
from catgan.config import Config
from catgan.config_io import dump_yaml, load_yaml
from catgan.recipes import augmentation, recipe
from catgan.system.processes import Processes

TINY = (
    "--generator.depth 3 --generator.width 16 --generator.heads 2 --discriminator.depth 1 --discriminator.width 16 --discriminator.heads 2 "
    "--discriminator.head-dim 8 --batch 4 --device cpu --log.diagnose-samples 4 --log.preview-rows 1"
)


def call(*argv: object) -> int:
    return main([str(a) for a in argv])


def pictures(root: Path, count: int = 24, side: int = 12, mode: str = "RGB") -> Path:
    chance = np.random.default_rng(0)
    for k in range(count):
        path = root / ("ant", "bee", "cat")[k % 3] / f"{k:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (side, side, 3), np.uint8)).convert(mode).save(path)
    return root


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("pictures") / "src")


@pytest.fixture(scope="module")
def dest(source: Path) -> Path:
    assert call("prepare", source, source.parent / "dest", "--size", 8, "--shard-rows", 5, "--workers", 2) == 0
    return source.parent / "dest"


def test_a_folder_of_pictures_is_trained_on_and_resumed(
    dest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("train", "digits", "--data", dest, "--out", tmp_path / "run", "--steps", 3, *TINY.split()) == 0
    config = load_yaml(tmp_path / "run" / "config.yaml")
    assert (config.data.source, config.data.path) == ("prepared", str(dest))
    assert (config.sample.channels, config.sample.size, config.sample.classes) == (3, 8, 3)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["class_names"] == ["ant", "bee", "cat"]
    for steps, more in ((4, ()), (5, ("--data", dest))):
        assert call("train", "digits", "--out", tmp_path / "run", "--resume", "--steps", steps, *more) == 0
    assert checkpoint.read_header(checkpoint.listed(tmp_path / "run" / "checkpoints")[-1]).step == 5
    capsys.readouterr()
    assert call("train", "digits", "--out", tmp_path / "run", "--resume", "--data", tmp_path) == 2
    assert "no prepared data" in capsys.readouterr().err


def test_a_resumed_run_keeps_what_options_made_of_the_data(dest: Path, tmp_path: Path) -> None:
    """--data alone would set three classes again."""
    run = ("train", "digits", "--data", dest, "--out", tmp_path / "run")
    assert call(*run, "--steps", 1, "--sample.classes", 1, *TINY.split()) == 0
    assert call(*run, "--steps", 2, "--resume") == 0
    assert load_yaml(tmp_path / "run" / "config.yaml").sample.classes == 1


def test_a_run_goes_on_with_its_own_data_alone_wherever_they_lie(
    source: Path, dest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ("train", "digits", "--out", tmp_path / "run", "--data")
    assert call(*run, dest, "--steps", 1, *TINY.split()) == 0
    other = pictures(tmp_path / "other", side=13)  # of the same shape, names and classes
    assert call("prepare", other, tmp_path / "same-shape", "--size", 8, "--shard-rows", 5) == 0
    capsys.readouterr()
    assert call(*run, tmp_path / "same-shape", "--steps", 2, "--resume") == 2
    said = capsys.readouterr().err
    assert f"cannot resume {tmp_path / 'run'} with other data: {tmp_path / 'same-shape'} is not" in said
    assert said.count("\n") == 1
    shutil.copytree(dest, tmp_path / "moved")
    assert call(*run, tmp_path / "moved", "--steps", 2, "--resume") == 0
    assert load_yaml(tmp_path / "run" / "config.yaml").data.path == str(tmp_path / "moved")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(about | {"data": None}))  # of a dataset given in Python
    assert call(*run, tmp_path / "moved", "--steps", 3, "--resume") == 2


def test_data_goes_over_yaml_and_options_over_data(dest: Path, tmp_path: Path, tiny_config: Config) -> None:
    (tmp_path / "tiny.yaml").write_text(dump_yaml(tiny_config))
    run = ("train", "digits", "--data", dest, "--config", tmp_path / "tiny.yaml", "--steps", 1, "--sample.classes", 7)
    assert call(*run, "--out", tmp_path / "run") == 0
    config = load_yaml(tmp_path / "run" / "config.yaml")
    assert (config.data.source, config.sample.channels, config.sample.classes) == ("prepared", 3, 7)


def test_a_size_that_the_recipe_does_not_take_says_which_it_takes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("prepare", source, tmp_path / "dest", "--size", 32) == 0
    assert call("train", "digits", "--data", tmp_path / "dest", "--out", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "has samples of 32x32, digits takes 8x8 (sample.scales 2 4 8)" in said
    assert f"--size 8, take what fits (catgan train --data {tmp_path / 'dest'}), or give --sample.scales" in said
    assert not (tmp_path / "run").exists()
    scales = ("--sample.scales", 8, 16, 32, "--discriminator.patches", 8, 8, 8, "--generator.patch", 8)
    run = ("train", "digits", "--data", tmp_path / "dest", "--out", tmp_path / "run", "--steps", 1)
    assert call(*run, *scales, *TINY.split()) == 0


def test_the_summary_says_what_was_made_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = pictures(tmp_path / "src", mode="L")
    (root / "ant" / "bad.png").touch()
    (root / "ant" / "notes.txt").touch()
    (root / "nothing").mkdir()
    assert call("prepare", root, tmp_path / "dest", "--size", 8, "--max-broken", 0.1) == 0
    said = capsys.readouterr().out
    assert "24 pictures of 3 classes, 8x8, grey" in said
    assert "left out: 1 broken, 1 file of other kinds, 1 folder without pictures" in said
    assert f"next: catgan train --data {tmp_path / 'dest'}" in said
    assert call("prepare", root, tmp_path / "dest", "--size", 8) == 0, "called again, nothing happens"


@pytest.mark.parametrize(
    ("size", "more", "recipe_name", "depth"),
    [
        (8, "--channels 1", "pictures-32", 3),
        (28, "", "pictures-32", 4),
        (100, "", "pictures-32", 4),
        (128, "--vae {vae}", "cat-b2", 4),
        (256, "--vae {vae} --no-images", "cat-b2", 4),
        (128, "--vae {vae} --encoder {dino} --encoder-size 28", "cat-b2", 4),
    ],
)
def test_what_is_suggested_next_trains_on_what_was_made(
    size: int, more: str, recipe_name: str, depth: int, source: Path, tmp_path: Path, tiny_vae: Path, tiny_dino: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("catgan.cli.train.gpu_here", lambda: False)
    options = more.format(vae=tiny_vae, dino=tiny_dino).split()
    assert call("prepare", source, tmp_path / "my data", "--size", size, *options) == 0
    program, *command = shlex.split(capsys.readouterr().out.partition("next: ")[2])
    assert (program, *command) == ("catgan", "train", "--data", str(tmp_path / "my data"))
    small = TINY.replace("--generator.depth 3", f"--generator.depth {depth}").split()
    if recipe_name == "cat-b2" and "dino" not in more and "--no-images" not in more:
        small += ["--encoder.path", str(tiny_dino), "--discriminator.representation-dim", "32", "--encoder.size", "28"]
    few = ("--steps", 1, "--precision", "float32", "--eval.every", 0, "--log.preview-classes", 1)
    assert call(*command, "--out", tmp_path / "run", *small, *few) == 0
    said = capsys.readouterr().err
    assert f"recipe {recipe_name}{' (without a GPU)' if size == 100 else ''} for 24 pictures of 3 classes, " in said
    assert ("--augment.flip" in said) == (not more.startswith("--vae"))
    assert load_yaml(tmp_path / "run" / "config.yaml").recipe == recipe_name


def test_a_run_without_a_recipe_is_named_after_its_data_and_goes_on_without_one(
    dest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("train", "--data", dest, "--steps", 1, "--optimizer.lr-generator", 0.001, *TINY.split()) == 0
    capsys.readouterr()
    assert call("train", "--data", dest, "--resume", "--steps", 2) == 0
    assert "recipe" not in capsys.readouterr().err, "nothing is chosen anew"
    assert load_yaml(tmp_path / "runs" / "dest" / "config.yaml").optimizer.lr_generator == 0.001
    assert call("train", "digits", "--data", dest, "--resume", "--out", "runs/dest") == 2
    assert "is a run of recipe pictures-32, not digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "gpu", "name"),
    [
        (40, True, "pictures-32"), (48, True, "pictures-64"), (96, True, "pictures-128"), (256, True, "pictures-128"),
        (128, False, "pictures-32"),
    ],
)  # fmt: skip
def test_the_recipe_is_the_one_of_the_nearest_size_or_without_a_gpu_the_smallest(
    size: int, gpu: bool, name: str, dest: Path, tmp_path: Path
) -> None:
    about = json.loads((dest / "catgan.json").read_text()) | {"size": size, "samples": 10_000}
    (tmp_path / "catgan.json").write_text(json.dumps(about))
    config = fitted(tmp_path, gpu).validate()
    assert (config.recipe, config.sample.size, config.augment) == (name, size, augmentation(10_000, 3))
    assert config.eval.features == "pixels", "needs neither classes nor weights"
    assert {"authenticity", "precision_recall"} < set(config.eval.metrics)
    assert (config.eval.samples, config.training.steps // config.eval.every) == (5000, 10)


def test_evaluations_come_ten_times_in_a_run_of_another_length_too(
    dest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("catgan.training.run.train", lambda *arguments, **options: None)
    seen: list[Config] = []
    monkeypatch.setattr(Config, "validate", lambda self: seen.append(self) or self)
    about = json.loads((dest / "catgan.json").read_text()) | {"samples": 600}
    monkeypatch.setattr("catgan.data.prepared.read_meta", lambda folder: about)
    monkeypatch.setattr("catgan.cli.train.concerns", lambda *arguments: [])
    Path("steps.yaml").write_text("training: {steps: 300}")
    Path("every.yaml").write_text("eval: {every: 7}")
    for options, every in (
        ("", 2000),
        ("--steps 300", 30),
        ("--steps 300 --eval.every 7", 7),
        ("--config steps.yaml", 30),
        ("--config every.yaml --steps 300", 7),
    ):
        call("train", "--data", dest, *options.split())
        assert seen[-1].eval.every == every, options


def test_so_few_pictures_that_nothing_can_be_told_are_not_evaluated(dest: Path, tmp_path: Path) -> None:
    about = json.loads((dest / "catgan.json").read_text())
    for count, evaluated in ((3, False), (10, True)):
        (tmp_path / "catgan.json").write_text(json.dumps(about | {"samples": count}))
        assert bool(fitted(tmp_path, False).eval.every) == evaluated


def test_without_what_measures_recall_that_is_said(dest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = json.loads((dest / "catgan.json").read_text()) | {"samples": 600}
    (tmp_path / "catgan.json").write_text(json.dumps(about))
    monkeypatch.setattr("catgan.cli.fitting.installed", lambda module: module != "torch_fidelity")
    config = fitted(tmp_path, False)
    assert config.eval.metrics == ("distance", "authenticity")
    assert "to notice collapse: pip install 'catgan[eval]'" in described(config, tmp_path)


def test_a_size_that_no_patches_divide_says_what_to_prepare(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("prepare", source, tmp_path / "odd", "--size", 37) == 0
    again = f"catgan prepare {source} {tmp_path}/odd-36 --size 36"
    said = f"{tmp_path}/odd has samples of 37x37, which no patches divide evenly: {again}\n"
    assert f"next: {said}" in capsys.readouterr().out
    assert call("train", "--data", tmp_path / "odd", "--out", tmp_path / "run") == 2
    assert capsys.readouterr().err == f"catgan train: error: {said}"
    assert not (tmp_path / "run").exists()
    assert call(*shlex.split(again)[1:]) == 0
    assert f"next: catgan train --data {tmp_path}/odd-36\n" in capsys.readouterr().out


def test_one_picture_is_no_data(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "src").mkdir()
    shutil.copy(source / "ant" / "0000.png", tmp_path / "src")
    assert call("prepare", tmp_path / "src", tmp_path / "one", "--size", 8) == 0
    assert "next: " in (said := capsys.readouterr().out)
    assert "holds one picture: a generator learns from many" in said
    assert call("train", "--data", tmp_path / "one", "--out", tmp_path / "run") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_classes_of_one_picture_and_batches_larger_than_the_data_are_warned_of(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ant/0000.png", "ant/0003.png", "bee/0001.png", "cat/0002.png"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, tmp_path / "src" / name)
    assert call("prepare", tmp_path / "src", tmp_path / "few", "--size", 8) == 0
    alone = "warning: classes bee, cat have one picture each, which the generator can only copy; add pictures, or leave"
    assert alone in capsys.readouterr().out
    run = ("train", "--data", tmp_path / "few", *TINY.split(), "--steps", 1)
    assert call(*run, "--out", tmp_path / "large", "--batch", 5) == 0
    said = capsys.readouterr().err
    assert alone in said
    assert "warning: 4 pictures for batches of 5: " in said
    assert "or use --batch 2\n" in said
    assert call(*run, "--out", tmp_path / "small", "--batch", 4) == 0
    assert "for batches" not in capsys.readouterr().err


def test_the_summary_counts_what_the_centre_crop_cut_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "src").mkdir()
    for k, shape in enumerate([(400, 4000), (40, 80), (90, 40)]):
        Image.fromarray(np.full((*shape, 3), k, np.uint8)).save(tmp_path / "src" / f"{k}.png")
    for crop, said in (("center", True), ("resize", False)):
        assert call("prepare", tmp_path / "src", tmp_path / crop, "--size", 8, "--crop", crop) == 0
        assert ("warning: 2 pictures are more than twice as long as wide: " in capsys.readouterr().out) == said


def test_a_recipe_evaluates_on_prepared_data_unless_there_is_nothing_to_classify(dest: Path, tmp_path: Path) -> None:
    base = recipe("fashion-mnist")
    assert base.eval.every
    assert on_data(base, dest, keep_sample=False).eval == base.eval
    flat = pictures(tmp_path / "src") / "ant"
    assert call("prepare", flat, tmp_path / "flat", "--size", 8) == 0
    assert on_data(base, tmp_path / "flat", keep_sample=False).eval.every == 0


def test_data_of_pixels_has_no_vae_whatever_the_recipe(source: Path, tmp_path: Path) -> None:
    assert call("prepare", source, tmp_path / "dest", "--size", 32) == 0
    alone = ("--objective.representation", 0, "--discriminator.representation-dim", 0, "--precision", "float32")
    small = ("--sample.scales", 16, 32, "--discriminator.patches", 8, 8, "--generator.patch", 8)
    run = ("train", "cat-b2", "--data", tmp_path / "dest", "--out", tmp_path / "run", "--steps", 1, *alone, *small)
    assert call(*run, *TINY.replace("--generator.depth 3", "--generator.depth 2").split()) == 0
    assert load_yaml(tmp_path / "run" / "config.yaml").sample.vae is None
    assert call("sample", tmp_path / "run", "--classes", "bee", "--seeds", 0, "--out", tmp_path / "samples") == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("prepare {src} {tmp}/d", "--size"),
        ("prepare {src} {tmp}/d --size 0", "--size is 0: must be at least 1"),
        ("prepare {src} {tmp}/d --size 8 --crop middle", "--crop"),
        ("prepare {src} {tmp}/d --size 8 --channels 2", "--channels"),
        ("prepare {src} {tmp}/d --size 8 --max-broken 2", "--max-broken is 2.0: must be in [0, 1]"),
        ("prepare {src} {tmp}/d --size 8 --workers -1", "--workers is -1"),
        ("prepare {src} {tmp}/d --size 8 --shard-rows 0", "--shard-rows is 0"),
        ("prepare {src} {tmp}/d --size 8 --flip", "--flip without --vae"),
        ("prepare {src} {tmp}/d --size 8 --no-images", "--no-images without --vae"),
        ("prepare {src} {src}/d --size 8", "choose a DEST outside of SOURCE"),
        ("prepare {tmp}/none {tmp}/d --size 8", "does not exist: must be a folder"),
        ("prepare {dest} {tmp}/d --size 8", "is prepared data already: train on it with --data"),
        ("prepare {src} /proc/none --size 8", "cannot write /proc/none"),
        ("prepare {src} {dest} --size 9", "has been prepared with another size (8, not 9)"),
        ("train --data {src} --out {tmp}/run", "is no prepared data (it has no catgan.json)"),
        ("train --data {dest} digitz --out {tmp}/run", "recipe is digitz"),
        ("train --data {dest} --out {tmp}/run --steps many", "--training.steps"),
        ("train digits --data {src} --out {tmp}/run", "is no prepared data (it has no catgan.json)"),
        (
            "train digits --data.source prepared --out {tmp}/run",
            "prepared needs a folder made by catgan prepare; add --data F",
        ),
        ("train pictures-32 --out {tmp}/run", "prepared needs a folder made by catgan prepare; add --data FOLDER"),
        ("train digits --data.source prepared --data.path {dest} --out {tmp}/run", "samples of 3x8x8"),
        ("train digits --data.workers -1 --out {tmp}/run", "data.workers is -1"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    argv: str, said: str, source: Path, dest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*argv.format(src=source, tmp=tmp_path, dest=dest).split()) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_each_process_has_its_vae_on_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six processes on four GPUs."""
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr("catgan.encoders.vae.load_vae", lambda path, device, option: SimpleNamespace(device=device))
    for name in ("auto", "cuda"):
        encoder = open_encoder(PrepareOptions("src", Path("dest"), 8, vae="vae", device=name), Processes(5, 6))
        assert encoder.device == torch.device("cuda:1")


def test_a_broken_environment_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "0")
    assert call("prepare", source, tmp_path / "d", "--size", 8) == 2
    assert "environment variable WORLD_SIZE is 0" in capsys.readouterr().err


# -- whole processes ---------------------------------------------------------------------------------------------------


def contents(dest: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(dest.iterdir())}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough pictures to be interrupted, a few of them broken."""
    root = pictures(tmp_path_factory.mktemp("many") / "src", 900, 40)
    for k in (1, 500):
        (root / ("ant", "bee", "cat")[k % 3] / f"{k:04d}.png").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def whole(many: Path) -> dict[str, bytes]:
    assert call("prepare", many, many.parent / "whole", "--size", 32, "--shard-rows", 20) == 0
    return contents(many.parent / "whole")


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(many: Path, tmp_path: Path) -> Start:
    def begin(*more: str, **environment: str) -> subprocess.Popen[str]:
        command = [sys.executable, *more, "-m", "catgan"]
        options = ["prepare", str(many), str(tmp_path / "dest"), "--size", "32", "--shard-rows", "20", "--workers", "1"]
        env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        return subprocess.Popen(command + options, stderr=subprocess.PIPE, text=True, env=env)

    return begin


@pytest.mark.slow
def test_torchrun_divides_the_work_and_the_result_is_that_of_one_process(
    start: Start, whole: dict[str, bytes], tmp_path: Path
) -> None:
    process = start("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3")
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert contents(tmp_path / "dest") == whole


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_with_any_number_of_processes_and_ends_the_same(
    start: Start, whole: dict[str, bytes], tmp_path: Path
) -> None:
    first = start()
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "dest").glob("work/shard-*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    done = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "dest").glob("data-*.arrow")}
    assert 5 <= len(done) < 45, "the machine outran the test"
    both = [start(RANK=str(r), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2") for r in range(2)]
    for process in both:
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    assert contents(tmp_path / "dest") == whole
    now = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "dest").glob("data-*.arrow")}
    assert sum(now[name] == then for name, then in done.items()) >= len(done) - 1, "whole shards are not written again"
