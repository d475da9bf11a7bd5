"""The classifier: good enough to mean something, the same each time, and trained once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from catgan.data.datasets import Images
from catgan.errors import UserError
from catgan.evaluation import classifier as module
from catgan.evaluation.classifier import Classifier, classifier, everything, network, prepared
from catgan.evaluation.sources import DatasetImages

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images of each training, which is shortened."""
    monkeypatch.setattr(module, "FEWEST", 6000)
    real, seen = module.trained, []

    def counted(images: torch.Tensor, *rest: object) -> Classifier:
        seen.append(len(images))
        return real(images, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "trained", counted)
    return seen


def test_it_learns_digits_and_is_trained_once(few_digits: Images, trainings: list[int], cache_folder: Path) -> None:
    source = DatasetImages(few_digits, "digits")
    state = torch.get_rng_state()
    first = classifier(source, CPU, quiet=True)
    assert torch.equal(torch.get_rng_state(), state), "training must not notice"
    assert first.accuracy >= 0.9
    again = classifier(DatasetImages(few_digits, "by another name"), CPU, quiet=True)
    assert trainings == [150]
    assert (again.accuracy, again.identity(), again.classes) == (first.accuracy, first.identity(), 3)
    features, logits = again(source.read(0, 150)[0])
    assert features.shape == (150, again.dim)
    assert logits is not None
    assert float((logits.argmax(1) == few_digits.labels).double().mean()) > 0.9
    assert torch.equal(logits, again.network[-1](features))
    stored = list((cache_folder / "classifiers").iterdir())
    assert len(stored) == 1


def test_damaged_files_are_replaced_by_the_same_classifier(
    few_digits: Images, trainings: list[int], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEWEST", 1)
    source = DatasetImages(few_digits, "digits")
    first = classifier(source, CPU, quiet=True)
    (path,) = (cache_folder / "classifiers").iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-7], b"", whole.replace(b"accuracy", b"accurate")):
        path.write_bytes(damaged)
        assert classifier(source, CPU, quiet=True).identity() == first.identity()
        assert path.read_bytes() == whole
    assert len(trainings) == 4


def test_other_images_or_classes_make_another_classifier(
    few_digits: Images, trainings: list[int], cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEWEST", 1)
    pixels, labels = few_digits.pixels.numpy().copy(), few_digits.labels.numpy()
    more = classifier(DatasetImages(Images(pixels, labels, ("0", "1", "2", "3")), "x"), CPU, quiet=True)
    assert more.classes == 4
    classifier(DatasetImages(few_digits, "x"), CPU, quiet=True)
    pixels = pixels.copy()
    pixels[0, 0, 0, 0] *= -1
    classifier(DatasetImages(Images(pixels, labels, ("0", "1", "2")), "x"), CPU, quiet=True)
    assert len(trainings) == 3
    assert len(list((cache_folder / "classifiers").iterdir())) == 3


def test_images_without_classes_cannot_train_one(noise: Callable[..., DatasetImages]) -> None:
    with pytest.raises(UserError, match="noise has no classes, so no classifier can be trained on it"):
        classifier(noise(20, classes=1), CPU)


@pytest.mark.parametrize("size", [4, 8, 28, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_of_image_fits(size: int, channels: int) -> None:
    net = network(channels, size, 5).eval()
    assert net(torch.zeros(2, channels, size, size)).shape == (2, 5)


def test_large_images_are_reduced_to_64_pixels(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(256, size=(3, 128, 128, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", arr_0=images, arr_1=np.arange(3))
    from catgan.evaluation.sources import Npz

    x, y = everything(Npz(tmp_path / "a.npz"))
    assert y.tolist() == [0, 1, 2]
    expected = images.reshape(3, 64, 2, 64, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    assert np.abs(x.numpy() - expected).max() <= 0.5 + 1e-3
    assert torch.equal(prepared(x), x.float() / 127.5 - 1)
