"""On real images the numbers of an evaluation measure what they should: each gets worse with what it is to see.

A short version of benchmarks/distances.py, whose degradations it uses.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from catgan.data.datasets import Images, fashion_folder, fashion_mnist
from catgan.errors import UserError
from catgan.evaluation import classifier as classifiers
from catgan.evaluation.collect import Keep, Work
from catgan.evaluation.evaluator import Evaluator
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.reference import of_source
from catgan.evaluation.sources import DatasetImages, ImageSource

pytestmark = pytest.mark.slow

COUNT = 2000  # images on either side
PROTOCOL = Protocol("classifier", ("distance", "class_distance", "class_accuracy"), COUNT)

Measure = Callable[[ImageSource], dict[str, float]]


def load_benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "distances.py"
    spec = importlib.util.spec_from_file_location("distances", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["distances"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


benchmark = load_benchmark()


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return fashion_folder(None)
    except UserError:
        pytest.skip(
            "Fashion-MNIST is not here: apt-get install dataset-fashion-mnist (Debian), or name the folder of its four "
            "IDX files in CATGAN_FASHION_MNIST"
        )


@pytest.fixture(scope="module")
def test_half(folder: Path) -> Images:
    return benchmark.part(fashion_mnist(folder, 28, "t10k"), np.arange(COUNT))


@pytest.fixture(scope="module")
def measure(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """Numbers of images against 2,000 of the train half, by a classifier that was trained on those for seconds."""
    work = Work(batch=250)
    real = DatasetImages(fashion_mnist(folder, 28), "fashion-mnist", np.arange(COUNT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(classifiers, "FEWEST", 6 * COUNT)
        space = classifiers.classifier(real, torch.device("cpu"), quiet=True)
        known = of_source(real, space, Keep(classes=10), work)
    return lambda source: Evaluator(known, space, PROTOCOL, work).measure(source).metrics


@pytest.fixture(scope="module")
def floor(measure: Measure, test_half: Images) -> dict[str, float]:
    return measure(DatasetImages(test_half, "test"))


def test_the_other_half_is_near_and_mostly_of_its_class(floor: dict[str, float]) -> None:
    assert floor["class_accuracy"] > 0.7
    assert floor["class_distance"] > floor["frechet_distance"] > 0


@pytest.mark.parametrize("name", ["noise", "blur", "labels", "classes"])
def test_each_degradation_raises_what_sees_it_step_by_step(
    name: str, floor: dict[str, float], measure: Measure, test_half: Images
) -> None:
    strengths = benchmark.DEGRADATIONS[name].strengths[-3:]
    rows = [floor] + [measure(benchmark.degraded(test_half, name, s)) for s in strengths]
    assert list(benchmark.failures({name: rows})) == []
    metric = "class_distance" if name == "labels" else "frechet_distance"
    assert rows[1][metric] > 1.5 * floor[metric]


def test_shuffled_labels_leave_the_plain_distance_alone(
    floor: dict[str, float], measure: Measure, test_half: Images
) -> None:
    assert measure(benchmark.degraded(test_half, "labels", 0.5))["frechet_distance"] == pytest.approx(
        floor["frechet_distance"], rel=1e-6
    )


def test_the_benchmark_reports_what_goes_the_wrong_way() -> None:
    rows = [{"frechet_distance": v} for v in (1.0, 3.0, 2.0)]
    assert list(benchmark.failures({"noise": rows})) == ["noise: frechet_distance does not rise: 1, 3, 2"]
