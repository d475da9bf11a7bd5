"""From a folder of pictures to samples of a latent model, through the commands, with real classes and tiny weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from catgan.cli import main
from catgan.config_io import load_yaml
from catgan.data.prepared import Prepared
from catgan.encoders import load_vae

COUNT = 22  # pictures, in shards of 5
OPTIONS = (
    "--sample.scales 4 8 --discriminator.patches 2 2 --generator.depth 2 --generator.width 16 --generator.heads 2 "
    "--discriminator.depth 1 --discriminator.width 16 --discriminator.heads 2 --discriminator.head-dim 8 "
    "--discriminator.representation-dim 32 --encoder.size 28 --batch 8 --precision float32 --device cpu "
    "--training.threads 1 --optimizer.lr-discriminator 0.003 --log.every 1 --log.preview-every 1000 "
    "--log.preview-rows 1 --log.diagnose-every 1000 --log.diagnose-samples 4"
)


def call(*argv: object) -> int:
    return main([str(a) for a in argv])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red discs and blue squares of many places and sizes."""
    root, chance = tmp_path_factory.mktemp("pictures") / "source", np.random.default_rng(0)
    for k in range(COUNT):
        picture = Image.new("RGB", (80, 70), (int(chance.integers(150, 255)),) * 3)
        left, top, side = (int(chance.integers(*span)) for span in ((0, 40), (0, 30), (15, 40)))
        box, draw = (left, top, left + side, top + side), ImageDraw.Draw(picture)
        if k % 2:
            draw.rectangle(box, (20, 40, 200))
        else:
            draw.ellipse(box, (200, 30, 20))
        path = root / ("disc", "square")[k % 2] / f"{k:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return root


def prepare(source: Path, dest: Path, vae: Path) -> int:
    return call("prepare", source, dest, "--size", 64, "--vae", vae, "--flip", "--shard-rows", 5, "--device", "cpu")


@pytest.fixture(scope="module")
def dest(source: Path, tiny_vae: Path) -> Path:
    assert prepare(source, source.parent / "dest", tiny_vae) == 0
    return source.parent / "dest"


@pytest.fixture(scope="module")
def run(dest: Path, tiny_dino: Path) -> Path:
    out = dest.parent / "run"
    options = (*OPTIONS.split(), "--steps", 40, "--encoder.path", tiny_dino)
    assert call("train", "cat-b2", "--data", dest, "--out", out, *options) == 0
    return out


def test_three_processes_prepare_the_rows_of_one(
    source: Path, dest: Path, tiny_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in (2, 0, 1):
        monkeypatch.setenv("RANK", str(rank))
        assert prepare(source, tmp_path / "three", tiny_vae) == 0
    one, three = Prepared(dest), Prepared(tmp_path / "three")
    assert one.meta == three.meta
    assert one.labels.tolist() == three.labels.tolist() == [0] * 11 + [1] * 11
    rows = np.arange(COUNT)
    assert np.array_equal(one.images(rows), three.images(rows))
    for column in ("moments", "moments_mirrored"):
        a, b = (data.gather(column, rows).astype(np.float32) for data in (one, three))
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_moments_are_those_of_the_vae_for_the_stored_picture_and_its_mirror_image(dest: Path, tiny_vae: Path) -> None:
    data, rows = Prepared(dest), np.arange(COUNT)
    x = data.images(rows).float() / 127.5 - 1
    for column, seen in (("moments", x), ("moments_mirrored", x.flip(-1))):
        expected = load_vae(str(tiny_vae)).moments(seen).flatten(1).numpy()
        np.testing.assert_allclose(data.gather(column, rows).astype(np.float32), expected, rtol=2e-3, atol=2e-3)


def test_the_run_knows_the_vae_of_its_latents(dest: Path, run: Path, tiny_vae: Path) -> None:
    sample, vae = load_yaml(run / "config.yaml").sample, load_vae(str(tiny_vae))
    assert (sample.channels, sample.size, sample.classes) == (4, 8, 2)
    assert (sample.vae, sample.vae_identity, sample.latent_scale) == (str(tiny_vae), vae.encoder_identity, vae.scale)
    with Image.open(run / "previews" / "samples-00000040.png") as preview:
        assert preview.size == (2 * 64 + 2, 64), "decoded, a column per class"


def test_the_discriminator_comes_to_predict_the_encoder(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["discriminator/representation/0"] for row in rows if "discriminator/representation/0" in row]
    assert len(losses) == 40
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_samples_of_the_exported_model_are_decoded(run: Path, tiny_vae: Path, tmp_path: Path) -> None:
    assert call("export", run, tmp_path / "model") == 0
    about = json.loads((tmp_path / "model" / "config.json").read_text())["preprocessing"]
    assert (about["space"], about["scale"], about["vae"]) == ("latents", 0.18215, str(tiny_vae))
    command = ("sample", tmp_path / "model", "--format", "png", "--seeds", "0-1")
    for name, more in (("named", ()), ("given", ("--vae", tiny_vae))):
        assert call(*command, "--out", tmp_path / name, *more) == 0
        pictures = sorted((tmp_path / name).iterdir())
        assert [p.name for p in pictures] == [f"class-{k}-seed-{s}.png" for k in range(2) for s in range(2)]
        pixels = [np.asarray(Image.open(p)) for p in pictures]
        assert all(p.shape == (64, 64, 3) and p.std() > 1 for p in pixels)


def test_a_vae_of_other_latents_decodes_nothing_and_another_decoder_does(
    run: Path, tiny_vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, code in (("encoder", 2), ("decoder", 0)):
        other = Path(shutil.copytree(tiny_vae, tmp_path / part))
        tensors = load_file(other / "diffusion_pytorch_model.safetensors")
        tensors[f"{part}.conv_in.bias"] += 1
        save_file(tensors, other / "diffusion_pytorch_model.safetensors")
        assert call("sample", run, "--seeds", 0, "--out", tmp_path / "out", "--vae", other) == code
        said = capsys.readouterr().err
        assert (f"VAE {other}: the digest of its encoder is" in said) == (code == 2)
        assert (tmp_path / "out").exists() == (code == 0)


# -- in pixels, with both encoders -------------------------------------------------------------------------------------

PIXELS = (
    "--sample.scales 8 16 32 64 --discriminator.patches 4 4 4 8 --generator.patch 8 --generator.depth 4 "
    "--generator.width 16 --generator.heads 2 --discriminator.depth 1 --discriminator.width 16 --discriminator.heads 2 "
    "--discriminator.head-dim 8 --discriminator.representation-dim 32 --encoder.size 56 --vision.size 32 --vision.width 8 "
    "--vision.warmup 4 --batch 8 --device cpu --training.threads 1 --log.every 1 --log.preview-every 1000 "
    "--log.preview-rows 1 --log.diagnose-every 1000 --log.diagnose-samples 4 --steps 8"
)


def test_pixels_train_with_both_encoders_and_are_sampled_without_them(
    source: Path, tiny_dino: Path, tiny_convnext: Path, tmp_path: Path
) -> None:
    """The paper's A.3 in small: bfloat16, alignment with the very picture, vision-aided heads."""
    dest, run = tmp_path / "pixels", tmp_path / "run"
    assert call("prepare", source, dest, "--size", 64) == 0
    encoders = ("--encoder.path", tiny_dino, "--vision.path", tiny_convnext)
    assert call("train", "cat-b2-pixels", "--data", dest, "--out", run, *PIXELS.split(), *encoders) == 0
    config = load_yaml(run / "config.yaml")
    assert (config.sample.channels, config.sample.vae, config.training.precision) == (3, None, "bfloat16")
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    names = ("discriminator/representation/0", "discriminator/vision/3", "generator/vision/3", "discriminator/r1/0")
    assert all(np.isfinite(row[name]) for name in names)
    assert call("export", run, tmp_path / "model") == 0
    assert call("sample", tmp_path / "model", "--format", "png", "--seeds", "0", "--out", tmp_path / "out") == 0
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as picture:
            assert (picture.size, picture.mode) == ((64, 64), "RGB")
