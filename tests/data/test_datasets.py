"""Where real samples come from, and what happens to files that do not fit."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from catgan.config import LATENT_SCALE, Config, DataConfig
from catgan.config_io import from_dict
from catgan.data import check_fits, data_identity, is_data_of, open_dataset
from catgan.data.datasets import Images, digits, fashion_folder
from catgan.data.latents import Latents
from catgan.errors import UserError


def test_digits_are_1797_images_in_ten_classes_between_minus_one_and_one() -> None:
    data = open_dataset(DataConfig(source="digits"), 8)
    x, y = data.batch(np.arange(len(data)), 0, 0)
    assert len(data) == 1797
    assert data.shape == (1, 8, 8)
    assert (x.shape, x.dtype, y.dtype) == ((1797, 1, 8, 8), torch.float32, torch.int64)
    assert (x.min().item(), x.max().item()) == (-1.0, 1.0)
    assert y.unique().tolist() == list(range(10))
    assert data.class_names == tuple("0123456789")


def test_a_batch_holds_the_rows_asked_for_in_their_order() -> None:
    data = digits()
    rows = np.array([5, 3, 5])
    x, y = data.batch(rows, 0, 0)
    assert torch.equal(x, data.pixels[[5, 3, 5]])
    assert torch.equal(y, data.labels[[5, 3, 5]])


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install 'catgan\[demo\]'"):
        digits()


# -- Fashion-MNIST -----------------------------------------------------------------------------------------------------

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28))


@pytest.fixture
def folder(tmp_path: Path, pictures: np.ndarray) -> Path:
    (tmp_path / IMAGES).write_bytes(idx(pictures))
    (tmp_path / LABELS).write_bytes(idx(np.array([9, 0, 3, 3, 1])))
    return tmp_path


def fashion(folder: Path, size: int = 32) -> DataConfig:
    return DataConfig(source="fashion-mnist", path=str(folder))


def test_fashion_mnist_is_padded_with_background_to_the_sample_size(folder: Path, pictures: np.ndarray) -> None:
    data = open_dataset(fashion(folder), 32)
    x, y = data.batch(np.arange(5), 0, 0)
    assert data.shape == (1, 32, 32)
    assert len(data.class_names) == 10
    assert y.tolist() == [9, 0, 3, 3, 1]
    inner = x[:, 0, 2:-2, 2:-2]
    assert torch.allclose(inner, torch.from_numpy(pictures / 127.5 - 1).float(), atol=1e-6)
    frame = x.clone()
    frame[:, 0, 2:-2, 2:-2] = -1
    assert (frame == -1).all()


def test_packed_files_read_like_plain_ones(folder: Path) -> None:
    plain = open_dataset(fashion(folder), 28).batch(np.arange(5), 0, 0)
    for name in (IMAGES, LABELS):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    packed = open_dataset(fashion(folder), 28).batch(np.arange(5), 0, 0)
    assert all(torch.equal(a, b) for a, b in zip(plain, packed, strict=True))


def damage_deflate(data: bytes) -> bytes:
    """A gzip file whose header is fine and whose contents are not."""
    return data[:12] + bytes(b ^ 0xFF for b in data[12:40]) + data[40:]


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        (IMAGES, b""),
        (IMAGES, b"\0\0\x08\x03\0\0\0\x05"),
        (IMAGES, b"<html>not found</html>"),
        (IMAGES, idx(np.zeros((5, 28, 28)))[:-1]),
        (IMAGES, idx(np.zeros((5, 28, 28))) + b"\0"),
        (IMAGES, idx(np.zeros(5))),
        (LABELS, idx(np.zeros((5, 28, 28)))),
        (IMAGES + ".gz", b"not gzip"),
        (IMAGES + ".gz", gzip.compress(idx(np.zeros((5, 28, 28))))[:-9]),
        (IMAGES + ".gz", damage_deflate(gzip.compress(np.random.default_rng(0).bytes(200)))),
        (LABELS + ".gz", gzip.compress(b"short")),
    ],
)
def test_a_damaged_file_is_named(folder: Path, name: str, contents: bytes) -> None:
    (folder / name.removesuffix(".gz")).unlink()
    (folder / name).write_bytes(contents)
    with pytest.raises(UserError) as caught:
        open_dataset(fashion(folder), 32)
    assert str(folder / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_different_lengths_do_not_belong_together(folder: Path) -> None:
    (folder / LABELS).write_bytes(idx(np.zeros(4)))
    with pytest.raises(UserError, match="5 images but 4 labels"):
        open_dataset(fashion(folder), 32)


@pytest.mark.parametrize("size", [16, 29])
def test_a_size_that_padding_cannot_reach_is_an_error(folder: Path, size: int) -> None:
    with pytest.raises(UserError, match=f"sample.size is {size}"):
        open_dataset(fashion(folder), size)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=IMAGES):
        open_dataset(fashion(tmp_path), 32)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        open_dataset(fashion(tmp_path / "nowhere"), 32)


@pytest.mark.parametrize("source", ["fashion-mnist", "latents"])
def test_data_without_a_path_says_how_to_set_it(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catgan.data.datasets.FASHION_PLACES", ())
    monkeypatch.delenv("CATGAN_FASHION_MNIST", raising=False)
    with pytest.raises(UserError, match=r"data.path is not set: .* --data.path"):
        open_dataset(from_dict({"data": {"source": source}}).data, 32)


def test_fashion_mnist_is_found_by_the_environment_or_where_debian_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catgan.data.datasets.FASHION_PLACES", (str(tmp_path / "nowhere"), str(tmp_path)))
    monkeypatch.delenv("CATGAN_FASHION_MNIST", raising=False)
    assert fashion_folder(None) == tmp_path
    (tmp_path / "own").mkdir()
    monkeypatch.setenv("CATGAN_FASHION_MNIST", str(tmp_path / "own"))
    assert fashion_folder(None) == tmp_path / "own"
    assert fashion_folder(str(tmp_path)) == tmp_path
    monkeypatch.setenv("CATGAN_FASHION_MNIST", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"CATGAN_FASHION_MNIST is .*gone: no such folder"):
        fashion_folder(None)


# -- latents -----------------------------------------------------------------------------------------------------------


def write_latents(folder: Path, moments: np.ndarray, labels: np.ndarray) -> DataConfig:
    np.save(folder / "moments.npy", moments)
    np.save(folder / "labels.npy", labels)
    return DataConfig(source="latents", path=str(folder))


def moments(count: int = 6, std: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((count, 4, 8, 8)).astype(np.float32)
    return np.concatenate([mean, np.full_like(mean, std)], axis=1)


def test_latents_have_half_the_channels_of_their_moments(tmp_path: Path) -> None:
    data = open_dataset(write_latents(tmp_path, moments(), np.array([0, 1, 2, 2, 1, 0])), 8)
    x, y = data.batch(np.array([2, 0]), 0, 0)
    assert (len(data), data.shape, data.class_names) == (6, (4, 8, 8), ("0", "1", "2"))
    assert (x.shape, x.dtype, y.dtype) == ((2, 4, 8, 8), torch.float32, torch.int64)
    assert y.tolist() == [2, 0]


def test_a_posterior_without_variance_is_the_scaled_mean() -> None:
    data = Latents(moments(std=0.0), np.zeros(6), ("a",))
    x, _ = data.batch(np.arange(6), 0, 0)
    assert torch.allclose(x, torch.from_numpy(moments()[:, :4]) * 0.18215)
    assert LATENT_SCALE == 0.18215


def test_the_posterior_is_drawn_anew_at_each_step_and_the_same_for_one_seed_and_step() -> None:
    data = Latents(moments(), np.zeros(6), ("a",))
    rows = np.arange(6)
    x = data.batch(rows, 1, 7)[0]
    assert torch.equal(data.batch(rows, 1, 7)[0], x)
    assert not torch.isclose(data.batch(rows, 1, 8)[0], x).any(1).all()
    assert not torch.isclose(data.batch(rows, 2, 7)[0], x).any(1).all()


def test_draws_have_the_posteriors_mean_and_deviation() -> None:
    data = Latents(moments(1), np.zeros(1), ("a",))
    x = torch.cat([data.batch(np.zeros(100, dtype=np.int64), 0, step)[0] for step in range(40)]) / 0.18215
    assert torch.allclose(x.mean(0), torch.from_numpy(moments(1)[0, :4]), atol=0.05)
    assert torch.allclose(x.std(0), torch.full((4, 8, 8), 0.5), atol=0.05)


def test_half_precision_moments_are_read_as_float32(tmp_path: Path) -> None:
    data = open_dataset(write_latents(tmp_path, moments().astype(np.float16), np.zeros(6, dtype=np.int16)), 8)
    x, y = data.batch(np.arange(6), 0, 0)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)


def test_class_names_come_from_their_file(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("tench\ngoldfish\n")
    data = open_dataset(write_latents(tmp_path, moments(), np.zeros(6, dtype=np.int64)), 8)
    assert data.class_names == ("tench", "goldfish")


@pytest.mark.parametrize("name", ["moments.npy", "labels.npy"])
@pytest.mark.parametrize("contents", ["pickle", "empty", "truncated", "text", "archive", "missing"])
def test_a_file_that_is_no_plain_array_is_refused_and_named(tmp_path: Path, name: str, contents: str) -> None:
    data = write_latents(tmp_path, moments(), np.zeros(6, dtype=np.int64))
    path = tmp_path / name
    if contents == "pickle":
        np.save(path, np.array([{"code": 1}], dtype=object), allow_pickle=True)
    elif contents == "empty":
        path.write_bytes(b"")
    elif contents == "truncated":
        path.write_bytes(path.read_bytes()[:-8])
    elif contents == "text":
        path.write_text("not an array")
    elif contents == "archive":
        np.savez(tmp_path / "archive.npz", a=np.zeros(3))
        (tmp_path / "archive.npz").rename(path)
    else:
        path.unlink()
    with pytest.raises(UserError) as caught:
        open_dataset(data, 8)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "labels"),
    [((6, 8, 8), [0] * 6), ((6, 7, 8, 8), [0] * 6), ((6, 8, 8, 8), [0] * 5), ((6, 8, 8, 8), [[0] * 6])],
)
def test_shapes_that_do_not_fit_are_named(tmp_path: Path, shape: tuple[int, ...], labels: list[int]) -> None:
    data = write_latents(tmp_path, np.zeros(shape, dtype=np.float32), np.array(labels))
    with pytest.raises(UserError, match=r"moments.npy has shape .* and labels.npy"):
        open_dataset(data, 8)


def test_negative_classes_are_refused(tmp_path: Path) -> None:
    data = write_latents(tmp_path, moments(), np.array([0, 1, 2, -1, 0, 0]))
    with pytest.raises(UserError, match="class -1 is negative"):
        open_dataset(data, 8)


@pytest.mark.parametrize("kind", ["U3", "M8[s]", "f4", "?"])
def test_classes_that_are_no_integers_are_refused(tmp_path: Path, kind: str) -> None:
    data = write_latents(tmp_path, moments(), np.zeros(6, dtype=kind))
    with pytest.raises(UserError, match=r"labels.npy holds .*: must be integers"):
        open_dataset(data, 8)


@pytest.mark.parametrize("kind", ["U3", "i8"])
def test_moments_that_are_no_floating_point_numbers_are_refused(tmp_path: Path, kind: str) -> None:
    data = write_latents(tmp_path, moments().astype(kind), np.zeros(6, dtype=np.int64))
    with pytest.raises(UserError, match=r"moments.npy holds .*: must be floating-point"):
        open_dataset(data, 8)


def test_classes_beyond_their_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("tench\ngoldfish\n")
    data = write_latents(tmp_path, moments(), np.array([0, 1, 2, 0, 0, 0]))
    with pytest.raises(UserError, match="class 2"):
        open_dataset(data, 8)


@pytest.mark.parametrize("change", ["values", "labels", "names", "nothing"])
@pytest.mark.parametrize("kind", [Images, Latents])
def test_an_identity_is_that_of_the_content(kind: type[Images | Latents], change: str) -> None:
    def make(values: int = 0, labels: int = 0, names: str = "b") -> Images | Latents:
        return kind(moments() + np.float32(values), np.arange(6) + labels, ("a", names))

    other = {"values": make(values=1), "labels": make(labels=1), "names": make(names="c"), "nothing": make()}[change]
    assert (data_identity(make()) == data_identity(other)) == (change == "nothing")


def test_a_dataset_of_ones_own_need_not_have_an_identity() -> None:
    assert data_identity(object()) is None  # type: ignore[arg-type]


# -- data against configuration ----------------------------------------------------------------------------------------


def test_data_of_the_wrong_shape_or_with_too_many_classes_names_the_fields(tiny_config: Config) -> None:
    data = digits()
    with pytest.raises(UserError, match=r"10 classes, sample.classes is 3"):
        check_fits(data, tiny_config)
    check_fits(data, from_dict({"sample": {"classes": 10}}, tiny_config))
    check_fits(data, from_dict({"sample": {"classes": 12}}, tiny_config))
    with pytest.raises(UserError, match=r"samples of 1x8x8, the configuration of 3x8x8"):
        check_fits(data, from_dict({"sample": {"classes": 10, "channels": 3}}, tiny_config))


def test_data_without_samples_is_refused(tiny_config: Config) -> None:
    with pytest.raises(UserError, match="no samples"):
        check_fits(Latents(np.zeros((0, 2, 8, 8)), np.zeros(0), ()), tiny_config)


def test_data_are_told_apart_by_identity_and_by_the_names_of_classes(tiny_config: Config) -> None:
    def images(classes: str) -> Images:
        return Images(np.zeros((3, 1, 8, 8), np.float32), np.arange(3), tuple(classes))

    class Nameless(Images):
        identity = None  # type: ignore[assignment]

    def nameless(classes: str) -> Images:
        return Nameless(np.zeros((3, 1, 8, 8), np.float32), np.arange(3), tuple(classes))

    for own, others in (
        (images("abc"), [images("abd"), nameless("abc")]),
        (nameless("abc"), [nameless("abd"), images("abc")]),
    ):
        about = {"data": data_identity(own), "class_names": list(own.class_names)}
        assert is_data_of(own, tiny_config, about)
        assert is_data_of(own, tiny_config, {}), "nothing is known"
        assert not any(is_data_of(other, tiny_config, about) for other in others)
