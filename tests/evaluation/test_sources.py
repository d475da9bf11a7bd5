"""Sources: whatever images come from, they arrive as the same bytes, and what is wrong with them is named."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import catgan
from catgan.cli import main
from catgan.config import Config, DataConfig
from catgan.data import open_dataset
from catgan.data.datasets import Images
from catgan.data.decode import is_grey
from catgan.data.prepared import Prepared
from catgan.data.sources import open_source as prepare_source
from catgan.errors import UserError
from catgan.evaluation import classifier
from catgan.evaluation.opening import open_images
from catgan.evaluation.sources import DatasetImages, Folder, Generated, Npz, with_channels
from catgan.networks import build_generator
from catgan.sampling.pipeline import CATPipeline

Draw = Callable[..., np.ndarray]


def pixels(count: int, size: int = 5, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(count, size, size, channels), dtype=np.uint8)


def npz(path: Path, compressed: bool = False, **arrays: np.ndarray) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def save(path: Path, image: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path, **options)


# -- .npz ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("labelled", [False, True])
def test_an_npz_in_pieces_equals_numpys_reading(
    tmp_path: Path, compressed: bool, channels: int, labelled: bool
) -> None:
    images, labels = pixels(50, channels=channels), np.arange(50, dtype=np.int32) % 4
    more = {"arr_1": labels} if labelled else {}
    source = Npz(npz(tmp_path / "a.npz", compressed, arr_0=images, **more))
    assert (len(source), source.channels) == (50, channels)
    assert source.class_names == (("0", "1", "2", "3") if labelled else ())
    for start, stop in ((0, 7), (7, 20), (40, 50), (3, 4), (0, 50)):  # onwards and back
        x, y = source.read(start, stop)
        assert x.dtype == torch.uint8
        np.testing.assert_array_equal(x.numpy().transpose(0, 2, 3, 1), images[start:stop])
        if labelled:
            assert y is not None
            assert y.tolist() == labels[start:stop].tolist()
        else:
            assert y is None


@pytest.mark.parametrize("compressed", [False, True])
def test_reading_may_begin_anywhere_in_an_npz_with_labels(compressed: bool, tmp_path: Path) -> None:
    images = pixels(2000)
    path = tmp_path / "a.npz"
    npz(path, compressed, arr_1=np.arange(2000), arr_0=images)  # labels first, which a wrong place would read as pixels
    read, labels = Npz(path).read(1200, 1300)
    assert torch.equal(read, torch.from_numpy(images[1200:1300]).permute(0, 3, 1, 2))
    assert labels is not None
    assert labels.tolist() == list(range(1200, 1300))


def test_reading_on_never_goes_back_to_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else compressed files would be unpacked anew for each batch."""
    source = Npz(npz(tmp_path / "a.npz", True, arr_0=pixels(200)))
    unpacked = 0
    real = zipfile.ZipExtFile._read1  # type: ignore[attr-defined]

    def counted(self: zipfile.ZipExtFile, n: int) -> bytes:
        nonlocal unpacked
        data: bytes = real(self, n)
        unpacked += len(data)
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "_read1", counted)
    for start in range(0, 200, 10):
        source.read(start, start + 10)
    assert unpacked <= 200 * 75


def test_the_identity_of_an_npz_is_that_of_its_images(tmp_path: Path) -> None:
    images = pixels(9)
    plain = Npz(npz(tmp_path / "a.npz", arr_0=images)).identity()
    assert Npz(npz(tmp_path / "b.npz", True, arr_0=images)).identity() == plain
    assert Npz(npz(tmp_path / "c.npz", arr_0=images, mu=np.zeros(3))).identity() == plain
    assert Npz(npz(tmp_path / "d.npz", arr_0=images, arr_1=np.zeros(9, np.int64))).identity() != plain
    images[8, 4, 4, 2] ^= 1
    assert Npz(npz(tmp_path / "e.npz", arr_0=images)).identity() != plain


class Trap:
    """Says so if it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle was run",))


def short() -> bytes:
    """An .npz whose header promises 9 images and which holds 5."""
    file, out = io.BytesIO(), io.BytesIO()
    np.save(file, pixels(9))
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("arr_0.npy", file.getvalue()[: -4 * 75])
    return out.getvalue()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": pixels(3)}, "has no arr_0"),
        ({"arr_0": pixels(3).astype(np.float32)}, "arr_0 is float32 (3, 5, 5, 3): must be uint8 (N, H, W, 1 or 3)"),
        ({"arr_0": pixels(3, channels=4)}, "must be uint8 (N, H, W, 1 or 3)"),
        ({"arr_0": pixels(3)[..., 0]}, "must be uint8 (N, H, W, 1 or 3)"),
        ({"arr_0": np.array([Trap()], dtype=object)}, "must be plain numbers"),
        ({"arr_0": np.asfortranarray(pixels(3))}, "in C order"),
        ({"arr_0": pixels(3), "arr_1": np.array([0, 1, -1])}, "arr_1 has class -1"),
    ],
)
def test_a_foreign_npz_is_named(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(UserError) as caught:
        Npz(npz(tmp_path / "a.npz", **arrays))
    assert said in str(caught.value)
    assert "a.npz" in str(caught.value)


def test_labels_that_are_none_are_left_alone(tmp_path: Path) -> None:
    for labels in (np.zeros(3, np.float32), np.zeros(2, np.int64), np.array([Trap()] * 3, dtype=object)):
        if labels.dtype == object:
            with pytest.raises(UserError, match="plain numbers"):
                Npz(npz(tmp_path / "a.npz", arr_0=pixels(3), arr_1=labels))
        else:
            assert Npz(npz(tmp_path / "a.npz", arr_0=pixels(3), arr_1=labels)).class_names == ()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_npz_is_an_error_wherever_it_is_damaged(tmp_path: Path, compressed: bool) -> None:
    """One flipped byte anywhere: an error in one line, or the very images."""
    images = pixels(40)
    whole = npz(tmp_path / "a.npz", compressed, arr_0=images).read_bytes()
    path = tmp_path / "b.npz"
    for place in range(0, len(whole), 53):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            x, _ = Npz(path).read(0, 40)
        except UserError as error:
            assert "b.npz" in str(error)  # noqa: PT017 - not every flip matters
        else:
            np.testing.assert_array_equal(x.numpy().transpose(0, 2, 3, 1), images)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no .npz file"),
        (b"PK\3\4 and no more", "is no .npz file"),
        (short(), "promises 675 bytes and holds 375"),
    ],
)
def test_a_truncated_npz_is_an_error(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        Npz(path)


# -- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 31, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_gives_the_pixels_of_its_files_by_name(tmp_path: Path, size: int, channels: int) -> None:
    images = pixels(3, size, channels)
    for name, image in zip(("c.bmp", "a.png", "b.PNG"), images, strict=True):
        save(tmp_path / name, image)
    (tmp_path / "notes.txt").write_text("not an image")
    source = Folder(tmp_path)
    assert (len(source), source.channels, source.size, source.class_names) == (3, channels, (size, size), ())
    x, y = source.read(0, 3)
    assert y is None
    np.testing.assert_array_equal(x.numpy().transpose(0, 2, 3, 1), images[[1, 2, 0]])


def test_folders_inside_it_are_classes_however_deep(tmp_path: Path) -> None:
    for name in ("dog/b.png", "cat/a.png", "dog/deep/c.png"):
        save(tmp_path / name, pixels(1)[0])
    source = Folder(tmp_path)
    assert source.class_names == ("cat", "dog")
    y = source.read(0, 3)[1]
    assert y is not None
    assert y.tolist() == [0, 1, 1]
    save(tmp_path / "stray.png", pixels(1)[0])
    assert Folder(tmp_path).class_names == ()


def test_broken_files_are_named_and_left_out_with_their_classes(tmp_path: Path) -> None:
    images = pixels(3, 16)
    for name, image in zip(("a/1.png", "b/1.png", "b/3.png"), images, strict=True):
        save(tmp_path / name, image)
    (tmp_path / "a/0.png").write_bytes(b"nothing")
    whole = (tmp_path / "b/1.png").read_bytes()
    (tmp_path / "b/2.png").write_bytes(whole[: len(whole) // 2])
    source = Folder(tmp_path)
    x, y = source.read(0, 5)
    np.testing.assert_array_equal(x.numpy().transpose(0, 2, 3, 1), images)
    assert y is not None
    assert y.tolist() == [0, 1, 1]
    assert [note.split(":")[0] for note in source.broken] == ["a/0.png", "b/2.png"]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_no_damage_of_a_file_escapes(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a.{suffix}", pixels(1, 24)[0])
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    draws = np.random.default_rng(0)
    for place in draws.integers(len(whole), size=25).tolist():
        damaged = tmp_path / f"b.{suffix}"
        damaged.write_bytes(whole[:place] + draws.bytes(3) + whole[place + 3 :][: int(draws.integers(len(whole)))])
        source = Folder(tmp_path)
        try:
            x, _ = source.read(0, 2)
        except UserError as error:  # its size or mode changed
            assert str(damaged) in str(error)  # noqa: PT017 - as above
        else:
            assert len(x) + len(source.broken) == 2


def test_unusable_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no images"):
        Folder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="none of its 1 images can be read"):
        Folder(tmp_path)


def test_images_of_other_sizes_modes_or_depths_are_errors_that_name_the_file(tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels(1, 8, 1)[0])
    save(tmp_path / "b.png", pixels(1, 9, 1)[0])
    with pytest.raises(UserError, match=r"b.png has 9x9 pixels, the first image 8x8"):
        Folder(tmp_path).read(0, 2)
    save(tmp_path / "b.png", pixels(1, 8, 3)[0])
    with pytest.raises(UserError, match=r"b.png is a colour image, those before it are grey"):
        Folder(tmp_path).read(0, 2)
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b.png has more than 8 bits"):
        Folder(tmp_path).read(0, 2)


@pytest.mark.parametrize(("name", "mode"), [("a.jfif", "L"), ("a.png", "LA"), ("a.pbm", "1")])
def test_a_folder_takes_what_prepare_takes_for_a_grey_picture(name: str, mode: str, tmp_path: Path) -> None:
    Image.fromarray(pixels(1, 8, 1)[0][..., 0]).convert(mode).save(tmp_path / name)
    folder, prepared = Folder(tmp_path), prepare_source(str(tmp_path))
    assert (len(folder), len(prepared)) == (1, 1)
    assert folder.channels == 1
    assert is_grey(prepared.read(0))
    assert folder.read(0, 1)[0].shape == (1, 1, 8, 8)


def test_grey_files_among_colour_ones_become_colour(tmp_path: Path) -> None:
    grey = pixels(1, 8, 1)[0]
    save(tmp_path / "a.png", pixels(1, 8, 3)[0])
    save(tmp_path / "b.png", grey)
    x, _ = Folder(tmp_path).read(1, 2)
    np.testing.assert_array_equal(x[0].numpy(), np.repeat(grey.transpose(2, 0, 1), 3, 0))


def test_the_identity_of_a_folder_changes_with_names_and_content_only(tmp_path: Path) -> None:
    for name, image in zip("abc", pixels(3), strict=True):
        save(tmp_path / f"{name}.png", image)
    before = Folder(tmp_path).identity()
    (tmp_path / "a.png").touch()
    (tmp_path / "notes.txt").write_text("not an image")
    assert Folder(tmp_path).identity() == before
    (tmp_path / "a.png").rename(tmp_path / "d.png")
    renamed = Folder(tmp_path).identity()
    assert renamed != before
    save(tmp_path / "d.png", pixels(1, seed=5)[0])
    assert Folder(tmp_path).identity() not in (before, renamed)


# -- generated -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 7, 19])
@pytest.mark.parametrize("sampling", ["balanced", "uniform"])
def test_a_generated_image_depends_on_its_number_alone(pipe: CATPipeline, batch: int, sampling: str) -> None:
    whole, y = Generated(pipe, 20, sampling, first_seed=5).read(0, 20)
    other = Generated(pipe, 30, sampling, first_seed=5)
    parts = [other.read(start, min(start + batch, 20)) for start in range(0, 20, batch)]
    assert (torch.cat([p[0] for p in parts]).int() - whole.int()).abs().max() <= 1  # rounding
    assert y is not None
    assert y.tolist() == torch.cat([p[1] for p in parts if p[1] is not None]).tolist()


def test_classes_come_in_turn_or_at_random(pipe: CATPipeline) -> None:
    assert Generated(pipe, 7, "balanced").classes.tolist() == [0, 1, 2, 0, 1, 2, 0]
    drawn = Generated(pipe, 3000, "uniform").classes
    assert np.bincount(drawn).min() > 900
    assert np.bincount(drawn).tolist() != [1000, 1000, 1000]
    assert Generated(pipe, 3000, "uniform", first_seed=1).classes.tolist() != drawn.tolist()


def test_samples_are_of_classes_that_were_trained(tiny_config: Config, pipe: CATPipeline) -> None:
    """A generator may have room for more."""
    config = dataclasses.replace(tiny_config, sample=dataclasses.replace(tiny_config.sample, classes=9))
    for sampling in ("balanced", "uniform"):
        source = Generated(CATPipeline(build_generator(config), config, ("0", "1", "2")), 50, sampling)
        assert set(source.classes.tolist()) == {0, 1, 2}
    one = dataclasses.replace(tiny_config, sample=dataclasses.replace(tiny_config.sample, classes=1))
    source = Generated(CATPipeline(build_generator(one), one, ("all",)), 50)
    assert set(source.classes.tolist()) == {0}
    assert source.class_names == ()
    assert source.read(0, 2)[1] is None


def test_the_identity_of_samples_changes_with_all_that_changes_them(tiny_config: Config, pipe: CATPipeline) -> None:
    plain = Generated(pipe, 20).identity()
    assert Generated(pipe, 20).identity() == plain
    others = [Generated(pipe, 21), Generated(pipe, 20, "balanced"), Generated(pipe, 20, first_seed=1)]
    others += [Generated(pipe, 20, psi=0.5)]
    others += [Generated(CATPipeline(build_generator(tiny_config), tiny_config, ("0", "1", "2")), 20)]
    digests = [o.identity() for o in others]
    digests.append(Generated(pipe.to(precision="bfloat16"), 20).identity())
    assert len({plain, *digests}) == 7


def test_latents_are_refused_before_any_work(tiny_config: Config) -> None:
    config = dataclasses.replace(tiny_config, sample=dataclasses.replace(tiny_config.sample, channels=4))
    with pytest.raises(UserError, match="makes latents of 4 channels"):
        Generated(CATPipeline(build_generator(config), config, ("0", "1", "2")), 20)


# -- in memory -------------------------------------------------------------------------------------------------------


def test_memory_gives_the_bytes_that_the_dataset_was_made_of() -> None:
    images = pixels(6, 8, 3)
    data = Images((images / 127.5 - 1).astype(np.float32).transpose(0, 3, 1, 2).copy(), np.arange(6) % 2, ("a", "b"))
    source = DatasetImages(data, "mine")
    x, y = source.read(2, 5)
    np.testing.assert_array_equal(x.numpy().transpose(0, 2, 3, 1), images[2:5])
    assert y is not None
    assert y.tolist() == [0, 1, 0]
    some = DatasetImages(data, "mine", np.array([5, 0, 1]))
    assert len(some) == 3
    np.testing.assert_array_equal(some.read(0, 2)[0].numpy().transpose(0, 2, 3, 1), images[[5, 0]])
    assert some.identity() == DatasetImages(data, "other name", np.array([5, 0, 1])).identity() != source.identity()
    assert some.identity() != DatasetImages(data, "mine", np.array([5, 1, 0])).identity()
    relabelled = Images(data.pixels.numpy(), 1 - data.labels.numpy(), ("a", "b"))
    assert DatasetImages(relabelled, "mine").identity() != source.identity()


def test_latents_in_memory_are_refused() -> None:
    with pytest.raises(UserError, match="4 channels: only grey and RGB"):
        DatasetImages(Images(np.zeros((2, 4, 8, 8), np.float32), np.zeros(2), ("a",)), "latents")


def test_grey_may_become_colour_and_not_the_other_way_round() -> None:
    grey = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4)
    assert torch.equal(with_channels(grey, 3, "x"), grey.repeat(1, 3, 1, 1))
    with pytest.raises(UserError, match="x has colour images, the reference grey ones"):
        with_channels(grey.repeat(1, 3, 1, 1), 1, "x")


class Mine:
    """Somebody's dataset: twelve colour pictures, two classes, and samples of another size."""

    class_names, shape = ("ant", "bee"), (3, 2, 2)

    def __init__(self, seed: int = 0) -> None:
        self.pictures = torch.from_numpy(pixels(12, seed=seed)).movedim(-1, 1)

    def __len__(self) -> int:
        return 12

    def images(self, rows: np.ndarray) -> torch.Tensor:
        return self.pictures[rows]

    def batch(self, rows: np.ndarray, seed: int, step: int, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(rows), *self.shape), torch.from_numpy(rows % 2)


def test_any_dataset_with_images_can_be_evaluated_and_be_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "FEWEST", 1)
    source = open_images(Mine())
    assert (len(source), source.channels, source.class_names) == (12, 3, ("ant", "bee"))
    x, y = source.read(3, 7)
    assert torch.equal(x, Mine().pictures[3:7])
    assert y is not None
    assert y.tolist() == [1, 0, 1, 0]
    assert open_images(Mine()).identity() == source.identity() != open_images(Mine(1)).identity()
    result = catgan.evaluate(Mine(), Mine(1), features="classifier", metrics=("distance", "class_accuracy"))
    assert result.metrics["frechet_distance"] > 0
    assert result.about["reference"]["name"] == "Mine"


# -- prepared data and latents -----------------------------------------------------------------------------------------


def test_prepared_pictures_are_read_as_they_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = pixels(6, size=8)
    for i, image in enumerate(drawn):
        save(tmp_path / "pictures" / ("ant", "bee")[i % 2] / f"{i}.png", image)
    for dest in ("a", "b"):
        assert main(["prepare", str(tmp_path / "pictures"), str(tmp_path / dest), "--size", "8"]) == 0
    source = open_images(str(tmp_path / "a"))
    assert isinstance(source, DatasetImages)
    assert (source.channels, source.class_names, len(source)) == (3, ("ant", "bee"), 6)
    images, labels = source.read(2, 6)
    assert labels is not None
    assert labels.tolist() == [0, 1, 1, 1], "in the order of the folders"
    assert torch.equal(images, torch.from_numpy(drawn[[4, 1, 3, 5]]).movedim(-1, 1))
    assert source.identity() == open_images(str(tmp_path / "b")).identity(), "of the content, not of the place"
    again = open_images(str(tmp_path / "b"))
    monkeypatch.setattr(Prepared, "gather", None)
    assert again.identity() == source.identity(), "known from stored digests, without reading"
    monkeypatch.undo()
    trained_on = open_dataset(DataConfig(source="prepared", path=str(tmp_path / "a")), 8)
    assert DatasetImages(trained_on, "a").identity() == source.identity()


def test_latents_are_evaluated_as_the_pictures_that_their_vae_makes(tiny_config: Config, tiny_vae: Path) -> None:
    sample = dataclasses.replace(tiny_config.sample, channels=4, vae=str(tiny_vae))
    config = dataclasses.replace(tiny_config, sample=sample)
    generator = build_generator(config)
    source = Generated(CATPipeline(generator, config, ("0", "1", "2")), 3)
    assert source.channels == 3
    assert source.read(0, 3)[0].shape == (3, 3, 64, 64), "eight pixels per latent's"
    undecoded = dataclasses.replace(config, sample=dataclasses.replace(sample, vae=None))
    with pytest.raises(UserError, match="latents of 4 channels, not pixels: give their VAE"):
        Generated(CATPipeline(generator, undecoded, ("0", "1", "2")), 3)


def test_a_folder_is_read_by_the_formats_that_start_no_other_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow shows EPS by Ghostscript, whatever the name of the file."""
    Image.new("RGB", (5, 5)).save(tmp_path / "b.png", "EPS")
    Image.new("RGB", (5, 5)).save(tmp_path / "a.png")
    started: list[object] = []
    monkeypatch.setattr("subprocess.Popen", lambda *a, **_: started.append(a))
    source = Folder(tmp_path)
    assert len(source.read(0, 2)[0]) == 1
    assert source.broken[0].startswith("b.png: cannot identify image file")
    assert started == []
