"""An encoder's stored features: those of the stored pictures, trained with as if they were computed online."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from catgan.cli import main
from catgan.data.features import FILE, StoredFeatures, feature_file, store_features
from catgan.data.prepared import Prepared
from catgan.encoders import load_dino
from catgan.errors import UserError
from catgan.system.processes import Processes

STILL = "--augment.translation 0 --augment.flip 0"
OPTIONS = (
    f"--sample.scales 4 8 --discriminator.patches 2 2 --generator.depth 2 --generator.width 16 --generator.heads 2 "
    f"--discriminator.depth 1 --discriminator.width 16 --discriminator.heads 2 --discriminator.head-dim 8 "
    f"--discriminator.representation-dim 32 --encoder.size 28 --batch 4 --precision float32 --device cpu "
    f"--training.threads 1 --log.every 1 --log.preview-every 1000 --log.diagnose-every 1000 --log.diagnose-samples 4 {STILL}"
)


def call(*argv: object) -> int:
    return main([str(a) for a in argv])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, chance = tmp_path_factory.mktemp("source"), np.random.default_rng(0)
    for k in range(7):
        path = root / ("a", "b")[k % 2] / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(chance.integers(256, size=(9, 9, 3), dtype=np.uint8)).save(path)
    return root


def prepare(source: Path, dest: Path, dino: Path, *more: object) -> int:
    return call("prepare", source, dest, "--size", 8, "--shard-rows", 3, "--device", "cpu",
                "--encoder", dino, "--encoder-size", 28, "--batch", 2, *more)  # fmt: skip


@pytest.fixture(scope="module")
def dest(source: Path, tiny_dino: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("dest") / "dest"
    assert prepare(source, made, tiny_dino) == 0
    return made


def test_stored_features_are_the_encoders(dest: Path, tiny_dino: Path) -> None:
    data, rows = Prepared(dest), np.array([6, 0, 3, 3])
    cls, patches = load_dino(str(tiny_dino), 28).encode(data.images(rows))
    stored = StoredFeatures(data)
    stored_cls, stored_patches = stored.split(stored.read(rows))
    assert (stored.dim, stored.grid) == (32, 2)
    torch.testing.assert_close(stored_cls, cls, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(stored_patches, patches, rtol=1e-3, atol=1e-3)


def test_an_interrupted_call_goes_on_and_processes_divide_the_shards(dest: Path, tiny_dino: Path) -> None:
    encoder = load_dino(str(tiny_dino), 28)
    files = [feature_file(dest, encoder.identity, k) for k in range(3)]
    before = [f.read_bytes() for f in files]
    for path in (dest / FILE, *files[1:]):
        path.unlink()
    kept = files[0].stat().st_mtime_ns
    assert not store_features(dest, encoder, batch=2, processes=Processes(1, 2), quiet=True)
    assert [f.exists() for f in files] == [True, True, False]
    assert not (dest / FILE).exists(), "nothing is complete yet"
    assert store_features(dest, encoder, batch=2, processes=Processes(0, 2), quiet=True)
    assert [f.read_bytes() for f in files] == before
    assert files[0].stat().st_mtime_ns == kept, "what was there is not made again"


def test_training_with_stored_features_is_training_with_the_encoder(
    dest: Path, tiny_dino: Path, tmp_path: Path
) -> None:
    losses = {}
    for name, options in (
        ("online", ("--encoder.path", tiny_dino)),
        ("cached", ("--encoder.cached", "--encoder.path", "None")),
    ):
        argv = ("train", "cat-b2", "--data", dest, "--out", tmp_path / name, "--steps", 3, *OPTIONS.split(), *options)
        assert call(*argv) == 0
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses[name] = [r["discriminator/representation/0"] for r in rows if "discriminator/representation/0" in r]
    assert len(losses["cached"]) == 3
    assert losses["cached"] == pytest.approx(losses["online"], rel=2e-3)


def test_what_cannot_be_is_said_in_a_line(
    source: Path, dest: Path, tiny_dino: Path, tiny_vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = ("train", "cat-b2", "--data", dest, "--out", tmp_path / "m", *OPTIONS.replace(STILL, "").split())
    assert call(*moved, "--encoder.cached") == 2
    assert "augment.translation is 0.125: must be 0 with encoder.cached" in capsys.readouterr().err
    other = ("train", "cat-b2", "--data", dest, "--out", tmp_path / "s", *OPTIONS.split(), "--encoder.cached")
    assert call(*other, "--encoder.size", 56) == 2
    assert "encoder.size is 56: must be 28, of the features" in capsys.readouterr().err
    assert prepare(source, dest, tiny_dino, "--encoder-size", 56) == 2
    assert "has features of another encoder or size: delete features.json" in capsys.readouterr().err
    assert prepare(source, tmp_path / "f", tiny_dino, "--vae", tiny_vae, "--flip") == 2
    assert "--encoder with --flip" in capsys.readouterr().err
    plain = tmp_path / "plain"
    assert call("prepare", source, plain, "--size", 8) == 0
    with pytest.raises(UserError, match="the data hold no features: add them with catgan prepare"):
        StoredFeatures(Prepared(plain))
