"""Reading prepared data: whole or refused, and a pure function of rows, seed and step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catgan.config import Config, DataConfig
from catgan.config_io import from_dict
from catgan.data import check_fits, open_dataset, raw_images
from catgan.data.encode import LatentEncoder
from catgan.data.listing import PictureSource
from catgan.data.prepare import make_plan, prepare
from catgan.data.prepared import Prepared
from catgan.errors import UserError


class FakeVAE:
    """Mean: the columns of the picture in order, 0 at the left; deviation: 0. So a mirror image is recognised."""

    scale, downsample, channels, encoder_identity, path = 0.5, 8, 4, "fake", "some/vae"

    def moments(self, x: torch.Tensor) -> torch.Tensor:
        mean = x[:, :1, ::8, ::8].expand(-1, 4, -1, -1)
        return torch.cat([mean, torch.zeros_like(mean)], 1)


def pictures(count: int) -> PictureSource:
    """Pictures brighter to the right, each with a grey of its own, of three classes."""
    ramp = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None], 16, 0)
    return PictureSource(
        "test",
        [f"{k}" for k in range(count)],
        np.arange(count) % 3,
        ("ant", "bee", "cat"),
        lambda i: ramp + np.uint8(i),
    )


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("pixels") / "dest"
    source = pictures(30)
    prepare(source, dest, make_plan(source, 16, shard_rows=7), threads=1, quiet=True)
    return dest


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("latents") / "dest"
    source, encoder = pictures(30), LatentEncoder(FakeVAE(), flip=True)
    prepare(source, dest, make_plan(source, 16, encoder=encoder, shard_rows=7), encoder, threads=1, quiet=True)
    return dest


def test_pixels_are_between_minus_one_and_one_and_belong_to_their_rows(pixels: Path) -> None:
    data = open_dataset(DataConfig(source="prepared", path=str(pixels)), 16)
    x, y = data.batch(np.array([29, 0, 7, 29]), 0, 0)
    assert (x.shape, x.dtype, y.dtype) == ((4, 1, 16, 16), torch.float32, torch.int64)
    assert y.tolist() == [2, 0, 1, 2]
    assert torch.allclose((x[:, 0, 0, 1] + 1) * 127.5, torch.tensor([39.0, 10.0, 17.0, 39.0]), atol=1e-4)


def test_many_threads_read_what_one_reads(latents: Path) -> None:
    data = Prepared(latents)
    rows = np.arange(30)[::-1].copy()
    alone = [data.batch(rows, 3, step)[0] for step in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda step: data.batch(rows, 3, step)[0], range(8)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_half_of_the_latents_are_of_mirror_images_and_which_is_keyed_by_step(latents: Path) -> None:
    data = Prepared(latents)
    rows = np.arange(30)
    for step in range(3):
        x = data.batch(rows, 0, step)[0]
        rising = x[:, 0, 0, 1] > x[:, 0, 0, 0]
        assert torch.equal(rising, ~data.mirrored(30, 0, step))
    mirrored = torch.cat([data.mirrored(30, 0, step) for step in range(40)]).float().mean()
    assert 0.45 < mirrored < 0.55
    assert not torch.equal(data.mirrored(30, 0, 0), data.mirrored(30, 0, 1))


def test_the_raw_image_of_a_mirrored_latent_is_mirrored(latents: Path) -> None:
    """The pictures are brighter to the right, and so are their latents, unless mirrored."""
    data, rows = Prepared(latents), np.arange(30)
    for step in range(3):
        x, images = data.batch(rows, 5, step)[0], raw_images(data, rows, 5, step)
        assert (images.shape, images.dtype) == ((30, 3, 16, 16), torch.uint8)
        rising = images[:, 0, 0, 15] > images[:, 0, 0, 0]
        assert torch.equal(rising, x[:, 0, 0, 1] > x[:, 0, 0, 0])
        assert 0 < rising.sum() < 30
        assert torch.equal(images[~rising].flip(-1), data.images(rows)[~rising]), "nothing but mirrored"


def test_raw_images_of_pixels_are_never_mirrored_and_grey_becomes_rgb(pixels: Path) -> None:
    data, rows = Prepared(pixels), np.arange(30)
    assert torch.equal(raw_images(data, rows, 5, 1), data.images(rows).expand(-1, 3, -1, -1))


def test_a_configuration_with_another_scale_of_latents_is_refused(latents: Path, tiny_config: Config) -> None:
    sample = {"size": 2, "channels": 4, "scales": [1, 2]}
    with pytest.raises(UserError, match=r"sample\.latent_scale is 0\.18215: must be 0\.5, as in the data"):
        check_fits(Prepared(latents), from_dict({"sample": sample}, tiny_config))
    check_fits(Prepared(latents), from_dict({"sample": sample | {"latent_scale": 0.5}}, tiny_config))


def test_latents_are_scaled_by_what_their_vae_says(latents: Path) -> None:
    data = Prepared(latents)
    x = data.batch(np.array([4]), 0, 0)[0]
    left = data.images(np.array([4]))[0, 0, 0, 15 if data.mirrored(1, 0, 0) else 0]
    assert x[0, 0, 0, 0].item() == pytest.approx((left.item() / 127.5 - 1) * 0.5, abs=1e-3)


def test_the_library_datasets_reads_the_folder(pixels: Path) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.load_from_disk(str(pixels))
    assert len(table) == 30
    assert table.features["label"].names == ["ant", "bee", "cat"]
    row = table[13]
    assert np.array_equal(np.reshape(row["image"], (16, 16)), Prepared(pixels).images(np.array([13]))[0, 0].numpy())
    assert (row["name"], row["label"], row["width"], row["height"]) == ("13", 1, 16, 16)


@pytest.mark.parametrize("damage", ["missing", "cut", "swapped", "json", "format", "no meta"])
def test_damaged_data_is_named(damage: str, pixels: Path, tmp_path: Path) -> None:
    for path in pixels.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard, meta = tmp_path / "data-00001-of-00005.arrow", tmp_path / "catgan.json"
    named = shard
    if damage == "missing":
        shard.unlink()
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "swapped":
        shard.write_bytes(bytes(shard.stat().st_size))
    else:
        named = meta
        text = meta.read_text()
        if damage == "json":
            meta.write_text(text[:50])
        elif damage == "format":
            meta.write_text(json.dumps(json.loads(text) | {"format": 99}))
        else:
            meta.unlink()
            named = tmp_path
    with pytest.raises(UserError) as caught:
        Prepared(tmp_path)
    assert str(named) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["shards"][0].update(file="../secret.arrow"), "outside of the folder"),
        (lambda m: m["shards"][0].update(rows="7"), "no number"),
        (lambda m: m.update(shards=[]), "are missing"),
        (lambda m: m.update(classes="ab"), "no list of texts"),
        (lambda m: m.pop("size"), "size"),
        (lambda m: m.update(channels=0), "a size is 0"),
        (lambda m: m.update(digests={}), "digests are missing"),
        (lambda m: m["digests"].update(dict.fromkeys(m["digests"], True)), "digests are missing"),
    ],
)
def test_what_preparing_would_not_write_is_damaged(
    change: Callable[[dict[str, Any]], object], said: str, pixels: Path, tmp_path: Path
) -> None:
    meta = json.loads((pixels / "catgan.json").read_text())
    change(meta)
    (tmp_path / "catgan.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match=rf"catgan\.json is damaged \(.*{said}.*\): copy it again"):
        Prepared(tmp_path)


def test_a_class_that_there_is_not_is_damage(pixels: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pixels, tmp_path / "copy"))
    meta = json.loads((copy / "catgan.json").read_text())
    (copy / "catgan.json").write_text(json.dumps(meta | {"classes": ["ant", "bee"]}))
    with pytest.raises(UserError, match="its rows or classes are not those"):
        Prepared(copy)


def test_what_a_kill_in_the_end_left_is_taken_away_by_the_next_call(tmp_path: Path) -> None:
    source, dest = pictures(6), tmp_path / "dest"
    plan = make_plan(source, 16)
    assert prepare(source, dest, plan, threads=1, quiet=True)
    (dest / "work").mkdir()
    (dest / "work" / "plan.json").write_text("{}")
    assert prepare(source, dest, plan, threads=1, quiet=True)
    assert not (dest / "work").exists()
