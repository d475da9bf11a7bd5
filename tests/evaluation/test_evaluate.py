"""A whole evaluation: numbers that mean something, and a record that says how they came about."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from catgan.data.datasets import Images
from catgan.errors import UserError
from catgan.evaluation import classifier as module
from catgan.evaluation.classifier import classifier
from catgan.evaluation.collect import Keep, Work
from catgan.evaluation.evaluator import Evaluator
from catgan.evaluation.protocol import ROUNDINGS, Protocol
from catgan.evaluation.reference import of_source
from catgan.evaluation.sources import DatasetImages, Folder, Generated
from catgan.sampling.pipeline import CATPipeline

Noise = Callable[..., DatasetImages]
ALL = ("distance", "kid", "inception_score", "precision_recall", "class_distance", "class_accuracy")
EVERYTHING = Protocol("classifier", ALL, samples=60, class_sampling="balanced", kid_subsets=4, score_splits=2)


def test_digits_are_like_digits_and_an_untrained_generators_samples_are_not(
    few_digits: Images, pipe: CATPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEWEST", 3000)
    even, odd = (DatasetImages(few_digits, "digits", np.arange(start, 150, 2)) for start in (0, 1))
    space = classifier(even, torch.device("cpu"), quiet=True)
    reference = of_source(even, space, Keep(features=75, classes=3), Work())
    real = Evaluator(reference, space, EVERYTHING, Work()).measure(odd)
    samples = Generated(pipe, 60, "balanced")
    fake = Evaluator(reference, space, EVERYTHING, Work(batch=16)).measure(samples)
    for smaller_is_better in ("frechet_distance", "kid", "class_distance"):
        assert real.metrics[smaller_is_better] < fake.metrics[smaller_is_better]
    for larger_is_better in ("inception_score", "recall", "class_accuracy"):
        assert real.metrics[larger_is_better] > fake.metrics[larger_is_better]
    assert real.metrics["class_accuracy"] > 0.8
    assert "75 samples for 128 features" in real.warnings[0]
    assert "3 of 3 classes have no more images than features" in real.warnings[1]
    assert len(real.warnings) == 2

    stored = json.loads(json.dumps(fake.to_dict()))
    assert stored["metrics"] == fake.metrics
    said = " ".join(stored["names"].values())
    assert not any(word in said for word in ("FID", "KID", "Inception"))
    how = stored["protocol"]
    assert {f.name for f in dataclasses.fields(Protocol)} < how.keys()
    assert (fake.step, real.step) == (7, 0), "the generator's, and none"
    assert how["measured"] == {
        "name": "digits, step 7", "images": 60, "identity": samples.identity(), "recipe": "digits", "step": 7,
    }  # fmt: skip
    assert how["reference"] == {"name": "digits", "images": 75, "identity": reference.identity}
    assert how["feature_space"] == {
        "name": "classifier", "dim": 128, "identity": space.identity(), "accuracy": space.accuracy,
    }  # fmt: skip
    assert (how["rounding"], how["decoder"]) == (ROUNDINGS["round"], None)
    assert "torch" in how["versions"]


def test_what_is_measured_is_at_no_distance_from_itself(noise: Noise, projection: Any) -> None:
    space = projection(16)
    reference = of_source(noise(200), space, Keep(features=200), Work())
    metrics = ("distance", "precision_recall")
    result = Evaluator(reference, space, Protocol("classifier", metrics), Work()).measure(noise(200))
    assert result.metrics["frechet_distance"] == pytest.approx(0, abs=1e-9)
    assert (result.metrics["precision"], result.metrics["recall"]) == (1, 1)
    assert result.warnings == []


def test_broken_files_on_either_side_are_reported(projection: Any, tmp_path: Path) -> None:
    for i in range(8):
        pixels = np.random.default_rng(i).integers(256, size=(4, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"nothing")
    space, work = projection(16), Work(max_broken=0.5)
    reference = of_source(Folder(tmp_path), space, Keep(), work)
    result = Evaluator(reference, space, Protocol("classifier"), work).measure(Folder(tmp_path))
    assert result.about["measured"]["images"] == 7
    notes = [note for note in result.warnings if "1 files of" in note and "3.png" in note]
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            "01",
            r"noise has 3 classes, the reference 2: must be as many, or leave class_distance and class_accuracy out",
        ),
        ("ab", r"noise has a class c, the reference \(noise\) has none of that name: must be one of a, b, or leave"),
    ],
)
def test_classes_that_the_reference_lacks_are_an_error_before_any_work(
    noise: Noise, projection: Any, names: str, said: str
) -> None:
    space, real = projection(16), noise(60, classes=2)
    real.class_names = tuple(names)
    reference = of_source(real, space, Keep(classes=2), Work())
    space.classes, seen = 2, len(space.seen)
    with pytest.raises(UserError, match=said):
        Evaluator(reference, space, Protocol("classifier", ("class_distance",)), Work()).measure(noise(60))
    assert len(space.seen) == seen


def test_classes_are_those_of_equal_names_whatever_their_numbers(noise: Noise, projection: Any) -> None:
    space = projection(16)
    reference = of_source(noise(90), space, Keep(classes=3), Work())
    evaluator = Evaluator(reference, space, Protocol("classifier", ("class_distance", "class_accuracy")))
    plain, turned = noise(60, seed=1), noise(60, seed=1)
    numbers = evaluator.measure(plain).metrics
    turned.dataset.labels = (turned.dataset.labels + 1) % 3  # type: ignore[attr-defined]
    assert evaluator.measure(turned).metrics != numbers, "b, c, a are now called a, b, c"
    turned.class_names = ("c", "a", "b")
    assert evaluator.measure(turned).metrics == numbers
    turned.class_names = ("0", "1", "2")
    assert evaluator.measure(turned).metrics != numbers, "numbers are no names"
