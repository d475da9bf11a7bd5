"""Preparing: the same rows whoever writes them and however often it is interrupted, and a word about every file."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from catgan.data import prepare as module
from catgan.data.decode import BrokenError, from_jpeg, to_picture
from catgan.data.encode import LatentEncoder
from catgan.data.listing import PictureSource
from catgan.data.prepare import Plan, make_plan, prepare
from catgan.data.prepared import Prepared
from catgan.data.sources import open_source
from catgan.errors import UserError
from catgan.system.files import sha256
from catgan.system.lock import exclusive
from catgan.system.processes import Processes

SIZE = 8


class FakeVAE:
    """A stand-in: the mean is the picture's 8x8 blocks averaged, plus one for every channel; the deviation is 1/4."""

    scale, downsample, channels, encoder_identity, path = 0.5, 8, 4, "fake", "some/vae"

    def moments(self, x: Tensor) -> Tensor:
        mean = torch.nn.functional.avg_pool2d(x, 8).mean(1, keepdim=True) + torch.arange(4).view(1, 4, 1, 1)
        return torch.cat([mean, torch.full_like(mean, 0.25)], 1)


def png(seed: int, width: int = 11, height: int = 9, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def folder(root: Path, count: int = 20, broken: tuple[int, ...] = (), mode: str = "RGB") -> PictureSource:
    """`count` pictures in classes ant and bee; some of them empty files."""
    for k in range(count):
        path = root / ("ant", "bee")[k % 2] / f"{k:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if k in broken else png(k, mode=mode))
    return open_source(str(root))


def plan_for(source: PictureSource, **more: Any) -> Plan:
    return make_plan(source, SIZE, **({"shard_rows": 3} | more))


def contents(dest: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(dest.iterdir())}


def run(source: PictureSource, dest: Path, plan: Plan | None = None, **more: Any) -> bool:
    return prepare(source, dest, plan or plan_for(source), quiet=True, **({"threads": 2} | more))


def test_rows_are_the_source_in_its_order(tmp_path: Path) -> None:
    source = folder(tmp_path / "src")
    assert run(source, tmp_path / "dest")
    data = Prepared(tmp_path / "dest")
    assert (len(data), data.shape, data.class_names) == (20, (3, SIZE, SIZE), ("ant", "bee"))
    assert data.labels.tolist() == source.labels.tolist()
    images = data.images(np.arange(20))
    for i in range(20):
        expected = to_picture(source.read(i), SIZE, 3, "center").pixels
        assert np.array_equal(images[i].movedim(0, -1).numpy(), expected)
    assert not (tmp_path / "dest" / "work").exists()


def test_the_data_know_the_digest_of_each_shard_and_are_told_apart_by_them(tmp_path: Path) -> None:
    source = folder(tmp_path / "src")
    run(source, tmp_path / "dest")
    about = json.loads((tmp_path / "dest" / "catgan.json").read_text())
    assert about["digests"] == {p.name: sha256(p) for p in (tmp_path / "dest").glob("data-*.arrow")}
    (tmp_path / "src" / "bee" / "003.png").write_bytes(png(77))
    run(source, tmp_path / "other")
    (tmp_path / "dest").rename(tmp_path / "moved")
    run(folder(tmp_path / "src2"), tmp_path / "again")
    data, other, again = (Prepared(tmp_path / name).identity for name in ("moved", "other", "again"))
    assert data == again != other


def test_data_without_digests_are_read_and_have_an_identity_too(tmp_path: Path) -> None:
    identities = set()
    for name, count in (("a", 20), ("b", 20), ("c", 18)):
        run(folder(tmp_path / f"src-{name}", count), tmp_path / name)
        path = tmp_path / name / "catgan.json"
        about = json.loads(path.read_text())
        del about["digests"]
        path.write_text(json.dumps(about))
        identities.add(Prepared(tmp_path / name).identity)
    assert len(identities) == 2


@pytest.mark.parametrize("world", [2, 3, 9])
def test_the_number_of_processes_leaves_no_trace(world: int, tmp_path: Path) -> None:
    source = folder(tmp_path / "src", broken=(2, 7, 8))
    run(source, tmp_path / "one", max_broken=0.5)
    ends = [
        run(source, tmp_path / "many", processes=Processes(r, world), max_broken=0.5) for r in reversed(range(world))
    ]
    assert ends == [False] * (world - 1) + [True]
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_an_interrupted_preparation_goes_on_and_keeps_what_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "src", broken=(4,))
    run(source, tmp_path / "whole", max_broken=0.5)
    write_text, written = module.write_text, []

    def dies_at_the_third_record(path: Path, text: str) -> None:
        if path.name == "shard-00002.json":
            raise KeyboardInterrupt
        write_text(path, text)
        written.append(path.name)

    monkeypatch.setattr(module, "write_text", dies_at_the_third_record)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "dest", max_broken=0.5)
    with pytest.raises(UserError, match="is not finished: call catgan prepare"):
        Prepared(tmp_path / "dest")
    monkeypatch.setattr(module, "write_text", lambda path, text: (write_text(path, text), written.append(path.name)))
    assert run(source, tmp_path / "dest", max_broken=0.5)
    assert written.count("shard-00000.json") == written.count("shard-00001.json") == 1
    assert contents(tmp_path / "dest") == contents(tmp_path / "whole")
    written.clear()
    assert run(source, tmp_path / "dest"), "finished data is left as it is"
    assert not written


def test_a_changed_source_or_option_is_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "src")
    run(source, tmp_path / "dest", processes=Processes(1, 2))
    for other, name in (
        (plan_for(source, crop="resize"), "crop"),
        (plan_for(source, channels=1), "channels"),
        (plan_for(source, shard_rows=4), "shard_rows"),
        (plan_for(folder(tmp_path / "src", 22)), "pictures"),
    ):
        with pytest.raises(UserError, match=f"dest was begun with another {name} "):
            run(source, tmp_path / "dest", other)
    run(source, tmp_path / "dest")
    with pytest.raises(UserError, match="dest has been prepared with another crop "):
        run(source, tmp_path / "dest", plan_for(source, crop="resize"))


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    source = folder(tmp_path / "src")
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / "thesis.txt").write_text("my life")
    with pytest.raises(UserError, match="exists and is no preparation"):
        run(source, tmp_path / "dest")
    assert [p.name for p in (tmp_path / "dest").iterdir()] == ["thesis.txt"]


def test_two_preparations_of_one_folder_at_once_are_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "src")
    with (
        exclusive(tmp_path / "dest" / "work" / "lock-0"),
        pytest.raises(UserError, match="is being prepared by another process"),
    ):
        run(source, tmp_path / "dest")
    assert run(source, tmp_path / "dest")


# -- broken pictures ---------------------------------------------------------------------------------------------------


def test_broken_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "src", broken=(0, 5))
    (tmp_path / "src" / "bee" / "003.png").write_bytes(png(3)[:-40])
    run(source, tmp_path / "dest", max_broken=0.15)
    report = json.loads((tmp_path / "dest" / "report.json").read_text())
    assert (report["pictures"], report["rows"], report["skipped"], report["complete"]) == (20, 17, 3, True)
    assert [entry["name"] for entry in report["skipped_files"]] == ["ant/000.png", "bee/003.png", "bee/005.png"]
    assert report["skipped_by_reason"]["empty file"] == 2
    assert report["rows_per_class"] == {"0 ant": 9, "1 bee": 8}
    assert len(Prepared(tmp_path / "dest")) == 17


def test_too_many_broken_pictures_are_an_error_that_can_be_mended_or_allowed(tmp_path: Path) -> None:
    source = folder(tmp_path / "src", broken=(0, 1, 2))
    with pytest.raises(UserError, match=r"of 20 pictures cannot be used, the first ant/000.png \(empty file\)"):
        run(source, tmp_path / "mended", max_broken=0.05)
    assert not (tmp_path / "mended" / "catgan.json").exists()
    assert json.loads((tmp_path / "mended" / "report.json").read_text())["complete"] is False
    with pytest.raises(UserError, match="cannot be used"):
        run(source, tmp_path / "allowed", max_broken=0.05)
    assert run(source, tmp_path / "allowed", max_broken=0.15)
    assert run(folder(tmp_path / "src"), tmp_path / "mended", max_broken=0.0)
    assert (len(Prepared(tmp_path / "allowed")), len(Prepared(tmp_path / "mended"))) == (17, 20)


def test_a_class_of_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    source = folder(tmp_path / "src", 6, broken=(0, 2, 4))
    with pytest.raises(UserError, match="no picture of class ant can be used"):
        run(source, tmp_path / "dest", max_broken=1.0)


@pytest.mark.filterwarnings("ignore")
def test_a_hundred_mutated_files_are_prepared_or_reported(tmp_path: Path) -> None:
    chance = np.random.default_rng(1)
    wholes = {}
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(chance.integers(0, 256, (20, 20, 3), np.uint8)).save(buffer, kind)
        wholes[kind.lower()] = buffer.getvalue()
    (tmp_path / "src").mkdir()
    for number in range(100):
        data = bytearray(wholes[list(wholes)[number % 5]])
        if number % 3 == 0:
            data[int(chance.integers(0, len(data)))] ^= 0xFF
        elif number % 3 == 1:
            del data[int(chance.integers(0, len(data))) :]
        suffix = list(wholes)[int(chance.integers(0, 5))]  # often the wrong one
        (tmp_path / "src" / f"{number}.{suffix}").write_bytes(data)
    source = open_source(str(tmp_path / "src"))
    assert run(source, tmp_path / "dest", plan_for(source, shard_rows=32), max_broken=1.0)
    report = json.loads((tmp_path / "dest" / "report.json").read_text())
    assert report["rows"] + report["skipped"] == 100
    assert report["rows"] >= 33
    assert report["skipped"] >= 20


def test_a_damaged_member_of_an_archive_is_one_broken_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(6):
            archive.writestr(f"ant/{k}.png", png(k))
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(data)
    run(open_source(str(path)), tmp_path / "dest", max_broken=0.2)
    skipped = json.loads((tmp_path / "dest" / "report.json").read_text())["skipped_files"]
    assert [entry["name"] for entry in skipped] == ["ant/0.png"]
    assert "CRC" in skipped[0]["reason"]


def test_without_pyarrow_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(tmp_path / "src", 4)
    run(source, tmp_path / "dest")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = r"prepared data needs pyarrow, which is not installed: pip install 'catgan\[data\]'"
    with pytest.raises(UserError, match=said):
        Prepared(tmp_path / "dest")
    with pytest.raises(UserError, match=said):
        run(source, tmp_path / "other")
    assert not (tmp_path / "other").exists()


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_channels_follow_the_source_unless_asked_for(tmp_path: Path) -> None:
    grey, colour = folder(tmp_path / "grey", 4, mode="L"), folder(tmp_path / "colour", 4)
    assert (plan_for(grey).channels, plan_for(colour).channels) == (1, 3)
    assert (plan_for(grey, channels=3).channels, plan_for(colour, channels=1).channels) == (3, 1)
    assert plan_for(grey, encoder=LatentEncoder(FakeVAE())).channels == 3


def test_shards_are_many_enough_to_share_and_small_enough_to_hold(tmp_path: Path) -> None:
    source = folder(tmp_path / "src", 4)

    def shards(pictures: int, size: int) -> Plan:
        several = PictureSource("x", ["n"] * pictures, np.zeros(pictures, np.int64), ("all",), source.read)
        return make_plan(several, size, channels=3)

    assert shards(1797, 8).shards == 8
    assert shards(60_000, 32).shards == 64
    assert shards(20_000, 256).shard_rows == 313
    assert shards(200_000, 256).shard_rows == 2**29 // (256 * 256 * 3)


# -- latents -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def latent(tmp_path: Path) -> Callable[..., Path]:
    """Data with moments of the stand-in VAE."""
    source = folder(tmp_path / "src")

    def make(name: str = "dest", flip: bool = False, images: bool = True, size: int = 16, **more: Any) -> Path:
        encoder = LatentEncoder(FakeVAE(), flip=flip, batch=2)
        plan = make_plan(source, size, encoder=encoder, images=images, shard_rows=5)
        prepare(source, tmp_path / name, plan, encoder, threads=2, quiet=True, **more)
        return tmp_path / name

    return make


def test_moments_are_the_vaes_in_half_precision(latent: Callable[..., Path]) -> None:
    data = Prepared(latent(flip=True))
    assert data.shape == (4, 2, 2)
    x = data.images(np.arange(20)).float() / 127.5 - 1
    for column, seen in (("moments", x), ("moments_mirrored", x.flip(-1))):
        stored = data.gather(column, np.arange(20)).reshape(20, 8, 2, 2)
        assert stored.dtype == np.float16
        assert np.array_equal(stored, FakeVAE().moments(seen).half().numpy())


def test_latents_too_do_not_depend_on_the_number_of_processes(latent: Callable[..., Path]) -> None:
    latent("many", processes=Processes(1, 2))
    assert contents(latent("one")) == contents(latent("many", processes=Processes(0, 2)))


def test_without_images_only_moments_are_kept(latent: Callable[..., Path]) -> None:
    data = Prepared(latent(images=False))
    assert list(data.columns) == ["moments"]
    with pytest.raises(UserError, match="holds no pictures, only latents"):
        data.images(np.arange(2))


def test_sizes_and_channels_that_the_vae_cannot_take_are_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "src", 4)
    with pytest.raises(UserError, match="--size is 12: must be a multiple of 8"):
        make_plan(source, 12, encoder=LatentEncoder(FakeVAE()))
    with pytest.raises(UserError, match="--channels is 1"):
        make_plan(source, 16, channels=1, encoder=LatentEncoder(FakeVAE()))
    with pytest.raises(UserError, match="--no-images without --vae"):
        make_plan(source, 16, images=False)


# -- JPEG files in place of pixels -------------------------------------------------------------------------------------


def smooth(root: Path, mode: str = "RGB", size: int = 64, count: int = 8) -> PictureSource:
    """Pictures of slow waves, as photographs are rather than noise."""
    rows = np.linspace(0, 5, size)
    for k in range(count):
        wave = np.sin(np.add.outer(rows * (1 + k / 5), rows))[..., None] * np.array([90, 70, 50]) + 128
        path = root / ("ant", "bee")[k % 2] / f"{k:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(wave.astype(np.uint8)).convert(mode).save(path)
    return open_source(str(root))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_rows_are_smaller_and_nearly_the_same_pictures(tmp_path: Path, mode: str) -> None:
    source = smooth(tmp_path / "in", mode)
    for name, quality in (("raw", None), ("jpeg", 95)):
        prepare(source, tmp_path / name, make_plan(source, 64, shard_rows=3, jpeg=quality), quiet=True)
    raw, jpeg = Prepared(tmp_path / "raw"), Prepared(tmp_path / "jpeg")
    assert jpeg.shape == raw.shape == ((3 if mode == "RGB" else 1), 64, 64)
    assert jpeg.identity != raw.identity
    rows = np.array([7, 0, 3, 4])
    (a, y), (b, same_y) = raw.batch(rows, 0, 0), jpeg.batch(rows, 0, 0)
    assert torch.equal(y, same_y)
    assert 0 < (a - b).abs().mean() < 0.02
    assert torch.equal(jpeg.images(rows).float() / 127.5 - 1, b)
    files = [sum(p.stat().st_size for p in (tmp_path / n).glob("*.arrow")) for n in ("raw", "jpeg")]
    assert files[1] < (0.5 if mode == "RGB" else 1) * files[0]


def test_data_of_jpeg_files_are_those_of_any_number_of_processes_and_another_quality_is_refused(tmp_path: Path) -> None:
    source = smooth(tmp_path / "in")
    plan = make_plan(source, 64, shard_rows=3, jpeg=90)
    prepare(source, tmp_path / "one", plan, quiet=True)
    for rank in (1, 0):
        prepare(source, tmp_path / "two", plan, processes=Processes(rank, 2), quiet=True)
    assert Prepared(tmp_path / "one").identity == Prepared(tmp_path / "two").identity
    with pytest.raises(UserError, match=r"has been prepared with another jpeg \(90, not None\)"):
        prepare(source, tmp_path / "one", make_plan(source, 64, shard_rows=3), quiet=True)
    with pytest.raises(UserError, match=r"has been prepared with another jpeg \(90, not 80\)"):
        prepare(source, tmp_path / "one", make_plan(source, 64, shard_rows=3, jpeg=80), quiet=True)


def test_a_damaged_jpeg_row_is_named(tmp_path: Path) -> None:
    source = smooth(tmp_path / "in")
    prepare(source, tmp_path / "out", make_plan(source, 64, jpeg=90), quiet=True)
    (path,) = (tmp_path / "out").glob("*.arrow")
    content = bytearray(path.read_bytes())
    at = content.find(b"\xff\xd8\xff")
    content[at : at + 3] = b"GIF"
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"is damaged: row 0 is no picture \(cannot identify image file\); copy it again"
    ):
        Prepared(tmp_path / "out").images(np.array([0]))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_row_of_another_shape_is_named_before_it_is_decoded(tmp_path: Path, mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (32, 32 if mode == "L" else 31)).save(buffer, "JPEG")
    with pytest.raises(BrokenError, match=rf"{mode} of 32x\d+, not 32x32"):
        from_jpeg(buffer.getvalue(), 32, 3)


def test_hugging_face_reads_jpeg_rows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    source = smooth(tmp_path / "in")
    prepare(source, tmp_path / "out", make_plan(source, 64, jpeg=90), quiet=True)
    row = datasets.load_from_disk(str(tmp_path / "out"))[0]
    assert Image.open(io.BytesIO(row["image"])).size == (64, 64)
