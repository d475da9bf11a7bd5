"""From names to what they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catgan.config import Config, DataConfig
from catgan.config_io import from_dict
from catgan.data import open_dataset
from catgan.errors import UserError
from catgan.evaluation import opening
from catgan.evaluation.collect import Work
from catgan.evaluation.evaluator import Facts, applicable
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.sources import DatasetImages, Folder, Generated, Npz
from catgan.metrics import METRICS
from catgan.networks import build_generator
from catgan.sampling.pipeline import CATPipeline
from catgan.system.processes import Processes

CPU = torch.device("cpu")
Noise = Callable[..., DatasetImages]


@pytest.fixture
def adm(tmp_path: Path, noise: Noise, projection: Any) -> Path:
    """Statistics that are not those of the images beside them."""
    images = noise(30).read(0, 30)[0].permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "adm.npz", arr_0=images, mu=np.full(6, 3.0), sigma=np.eye(6))
    return tmp_path / "adm.npz"


def test_images_are_opened_by_name(adm: Path, tmp_path: Path) -> None:
    assert len(opening.open_images("digits")) == 1797
    assert isinstance(opening.open_images(str(adm)), Npz)
    with pytest.raises(UserError, match="has no images"):
        opening.open_images(str(tmp_path))
    for wrong in ("digitz", "fashion-mnist:train2", str(tmp_path / "none.npz")):
        with pytest.raises(UserError, match=f"{wrong} does not exist or is no image source"):
            opening.open_images(wrong)
    with pytest.raises(UserError, match="no such folder"):
        opening.open_images("fashion-mnist:test", data_path=str(tmp_path / "none"))


def test_a_reference_is_statistics_images_or_both(adm: Path, tmp_path: Path) -> None:
    statistics, real = opening.real_images(str(adm), 8)
    assert statistics == adm
    assert isinstance(real, Npz)
    np.savez(tmp_path / "only.npz", mu=np.zeros(3), sigma=np.eye(3))
    assert opening.real_images(str(tmp_path / "only.npz"), 8) == (tmp_path / "only.npz", None)
    assert opening.real_images("digits", 8)[0] is None


def test_given_statistics_count_and_images_give_the_features(adm: Path, projection: Any) -> None:
    statistics, real = opening.real_images(str(adm), 8)
    space = projection(16)
    distance = Protocol("classifier", ("distance",))
    found = opening.open_reference((statistics, real), space, distance, Work())
    assert found.statistics.mu.tolist() == [3] * 6
    assert (found.features, space.seen) == (None, []), "nothing to compute"
    both = Protocol("classifier", ("distance", "kid"), reference_features=10)
    found = opening.open_reference((statistics, real), space, both, Work())
    assert found.statistics.mu.tolist() == [3] * 6
    assert found.features is not None
    assert found.features.shape == (10, 6)


@pytest.mark.parametrize(
    ("labelled", "classes", "images", "expected"),
    [
        (
            True,
            3,
            True,
            {
                "distance",
                "kid",
                "precision_recall",
                "authenticity",
                "inception_score",
                "class_distance",
                "class_accuracy",
            },
        ),
        (False, 3, True, {"distance", "kid", "precision_recall", "authenticity", "inception_score"}),
        (True, 0, True, {"distance", "kid", "precision_recall", "authenticity"}),
        (True, 3, False, {"distance", "inception_score"}),
    ],
)
def test_all_that_can_be_had_is_measured(
    noise: Noise, projection: Any, labelled: bool, classes: int, images: bool, expected: set[str]
) -> None:
    space = projection(16, classes=classes)
    space.names_classes = classes > 0
    samples = Facts.of(noise(12, classes=3 if labelled else 1))
    real = Facts.of(noise(12)) if images else Facts("statistics", 0, ())
    assert set(applicable(Protocol("classifier"), space, samples, real)) == expected


def test_what_needs_more_samples_than_there_are_is_not_measured_by_itself(noise: Noise, projection: Any) -> None:
    space = projection(16)
    for count, lacking in ((9, {"inception_score"}), (3, {"inception_score", "precision_recall"})):
        found = applicable(Protocol("classifier"), space, Facts.of(noise(count)), Facts.of(noise(50)))
        assert set(METRICS) - set(found) == lacking | {"cmmd"}  # which is defined in CLIP's features


def test_small_or_grey_images_are_for_the_classifier(noise: Noise, tmp_path: Path) -> None:
    classes, none = (None, noise(3)), (None, noise(3, classes=1))
    assert opening.fitting_features(noise(3), classes) == "classifier"
    assert opening.fitting_features(noise(3), none) == "pixels"
    for size, channels, expected in ((64, 3, "inception"), (63, 3, "classifier"), (64, 1, "classifier")):
        np.savez(tmp_path / "a.npz", arr_0=np.zeros((2, size, size, channels), np.uint8))
        assert opening.fitting_features(Npz(tmp_path / "a.npz"), classes) == expected


def test_a_classifier_needs_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trained on the reference's images"):
        opening.open_features("classifier", CPU, None, None, Work())


def test_latents_need_another_reference(tmp_path: Path) -> None:
    np.save(tmp_path / "moments.npy", np.zeros((4, 8, 2, 2), np.float32))
    np.save(tmp_path / "labels.npy", np.zeros(4, np.int64))
    with pytest.raises(UserError, match="are no images: give images or statistics as the reference"):
        DatasetImages(open_dataset(DataConfig(source="latents", path=str(tmp_path)), 2), "latents")


def test_the_reference_is_what_the_generator_was_trained_on_or_none(tiny_config: Config, tmp_path: Path) -> None:
    config = from_dict({"sample": {"classes": 10}}, tiny_config)  # its data.source is digits
    made = CATPipeline(build_generator(config), config, tuple("0123456789"))
    assert opening.open_real(None, Generated(made, 2))[1] is not None
    (tmp_path / "config.yaml").touch()
    made.source = tmp_path / "checkpoints" / "step-00000001"
    (tmp_path / "run.json").write_text('{"data": null}')  # a dataset given in Python
    with pytest.raises(UserError, match=r"digits, .* is not what this generator was trained on: give that as the ref"):
        opening.open_real(None, Generated(made, 2))
    made.source, made.class_names = None, tuple("abcdefghij")  # exported
    with pytest.raises(UserError, match="is not what this generator was trained on"):
        opening.open_real(None, Generated(made, 2))


def test_generators_are_told_from_images(tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(tiny_config)
    made = CATPipeline(build_generator(config), config, ("0", "1", "2"))
    monkeypatch.setattr(opening, "load", lambda path, weights, vae=None: made)
    (tmp_path / "config.yaml").touch()
    protocol = Protocol(samples=30, class_sampling="balanced", first_seed=4, psi=0.5)
    source = opening.open_samples(str(tmp_path), protocol, "cpu")
    assert isinstance(source, Generated)
    assert (source.count, source.sampling, source.first_seed, source.psi) == (30, "balanced", 4, 0.5)
    assert isinstance(opening.open_samples("a.safetensors", protocol, "cpu"), Generated)
    folder = tmp_path / "pictures"
    folder.mkdir()
    with pytest.raises(UserError, match="no images"):
        Folder(folder)


def test_the_first_process_works_before_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, expected in ((0, ["work", "wait"]), (1, ["wait", "work"])):
        happened: list[str] = []
        monkeypatch.setattr(Processes, "wait", lambda self, to=happened: to.append("wait"))
        opening.in_turn(Processes(rank, 2), lambda to=happened: to.append("work"))  # type: ignore[misc]
        assert happened == expected


def test_too_few_samples_are_refused_before_features_are_fetched_or_trained(
    noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "open_features", lambda *_: pytest.fail("much work"))
    protocol = Protocol("classifier", ("inception_score",))
    with pytest.raises(UserError, match="inception_score needs at least 10 images, few has 9"):
        opening.open_evaluator((None, noise(60)), Facts("few", 9, ("a",)), protocol, Work(), CPU)
