"""Which samples lie nearest to single real images, and the sheet that shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from catgan.evaluation.collect import Keep, Work, kept_rows
from catgan.evaluation.distances import nearest_distances
from catgan.evaluation.evaluator import Evaluator
from catgan.evaluation.features import FeatureSpace, Pixels
from catgan.evaluation.nearest import Nearest, nearest_samples, sheet, square
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.reference import of_source
from catgan.evaluation.sources import DatasetImages, Folder, Npz

AUTHENTICITY = Protocol("pixels", ("authenticity",))


def features(count: int, seed: int) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


def test_ratios_are_those_of_their_definition() -> None:
    a, b = features(40, 0), features(60, 1)
    found = nearest_distances(a, b)
    for i, x in enumerate(a):
        to_all = (b - x).norm(dim=1)
        j = int(to_all.argmin())
        gap = min(float((b[k] - b[j]).norm()) for k in range(60) if k != j)
        assert int(found.rows[i]) == j
        assert float(found.ratio[i]) == pytest.approx(float(to_all[j]) / gap, rel=1e-4)


def test_copies_come_first_and_of_what_twice_is_there_too() -> None:
    b = features(60, 1)
    b[11] = b[30]
    a = features(40, 0) + 3
    a[7], a[20] = b[5], b[30]
    found = nearest_samples(nearest_distances(a, b), a, b, 3, 60)
    assert found.samples[:2] == (7, 20)
    assert found.ratios[:2] == (0.0, 0.0)
    assert found.images[0][0] == 5
    assert set(found.images[1][:2]) == {11, 30}
    assert all(len(set(row)) == 4 for row in found.images)
    assert list(found.ratios) == sorted(found.ratios)
    assert found.closer == pytest.approx((nearest_distances(a, b).ratio <= 1).double().mean().item())


def test_there_are_no_more_rows_and_columns_than_samples_and_images() -> None:
    a, b = features(2, 0), features(3, 1)
    found = nearest_samples(nearest_distances(a, b), a, b, 9, 3)
    assert len(found.samples) == 2
    assert [len(row) for row in found.images] == [3, 3]


def test_images_have_their_numbers_among_all_of_which_some_are_looked_at() -> None:
    b = features(100, 1)
    kept = kept_rows(0, 100, 100, 30)
    a = b[kept[17]][None]
    found = nearest_samples(nearest_distances(a, b[kept]), a, b[kept], 1, 100)
    assert found.images[0][0] == kept[17]
    assert found.among == 30


def test_the_evaluator_names_copies_and_the_result_has_them(noise: Callable[..., DatasetImages]) -> None:
    real = noise(50)
    copies = DatasetImages(real.dataset, "copies", np.array([3, 49, 20]))
    space = cast(FeatureSpace, Pixels(1))
    reference = of_source(real, space, Keep(features=50), Work())
    evaluator = Evaluator(reference, space, AUTHENTICITY, Work())
    assert "nearest" not in evaluator.measure(copies).to_dict()
    result = evaluator.measure(copies, beside=(5, real))
    stored = result.to_dict()["nearest"]
    assert [(row["sample"], row["ratio"], row["images"][0]) for row in stored["samples"]] == [
        (0, 0, 3),
        (1, 0, 49),
        (2, 0, 20),
    ]
    assert stored["closer"] == 1 - result.metrics["authenticity"] == 1
    assert stored["closer_real"] == 1 - result.metrics["authenticity_real"]


def test_where_files_are_broken_nothing_is_named_and_a_warning_says_so(tmp_path: Path) -> None:
    for i in range(5):
        pixels = np.random.default_rng(i).integers(256, size=(8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    real, work = Folder(tmp_path), Work(max_broken=0.5)
    space = cast(FeatureSpace, Pixels(1))
    evaluator = Evaluator(of_source(real, space, Keep(features=5), work), space, AUTHENTICITY, work)
    result = evaluator.measure(Folder(tmp_path), beside=(2, real))
    assert result.nearest is None
    assert any("no nearest images are shown" in note for note in result.warnings)


def test_a_sheet_has_a_row_for_each_sample_whatever_the_sizes_and_colours(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", arr_0=draws.integers(256, size=(3, 8, 8, 1), dtype=np.uint8))
    np.savez(tmp_path / "b.npz", arr_0=draws.integers(256, size=(6, 16, 12, 3), dtype=np.uint8))
    found = Nearest((2, 0), (0.1, 0.5), ((5, 1, 0, 3), (4, 5, 1, 2)), 6, 0.5, 0.4)
    page = sheet(found, Npz(tmp_path / "a.npz"), Npz(tmp_path / "b.npz"), "pixels")
    assert page.mode == "RGB"
    assert page.width > 5 * 64
    assert page.height > 2 * 64


def test_a_tile_is_its_image_enlarged_with_white_around_it() -> None:
    image = torch.arange(8, dtype=torch.uint8).view(1, 4, 2)
    tile = square(image, 8, 1)
    assert (tile[:, :2] == 255).all()
    assert (tile[:, 6:] == 255).all()
    assert (tile[::2, 2:6:2, 0] == image[0].numpy()).all()
    assert square(image, 8, 3).shape == (8, 8, 3)
