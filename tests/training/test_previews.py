"""Real samples beside generated ones: in the same columns, whatever a dataset tells of itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images
from catgan.training.previews import Previews

SHADES = (60, 120, 180)  # of the classes


class Unlabelled:
    """A dataset that answers for rows and tells no labels."""

    class_names = ("a", "b", "c")
    shape = (1, 8, 8)

    def __init__(self, labels: np.ndarray) -> None:
        self.told = labels

    def __len__(self) -> int:
        return len(self.told)

    def batch(self, rows: np.ndarray, seed: int, step: int, first: int = 0) -> tuple[Tensor, Tensor]:
        y = torch.from_numpy(self.told[rows])
        return (torch.tensor(SHADES)[y] / 127.5 - 1).view(-1, 1, 1, 1).expand(-1, *self.shape), y


def drawn(config: Config, dataset: Images | Unlabelled, folder: Path) -> np.ndarray:
    """The shade in the middle of each tile, (rows, classes)."""
    Previews(config, folder, torch.device("cpu"), print, dataset).draw_real()
    picture = np.asarray(Image.open(folder / "real.png"))
    return picture[32::66, 32::66]


@pytest.mark.parametrize("labelled", [True, False])
def test_columns_are_the_previewed_classes(labelled: bool, tiny_config: Config, tmp_path: Path) -> None:
    """The third class has a single sample: what is missing is white."""
    plain = Unlabelled(np.array([0, 1] * 20 + [2]))
    x, y = plain.batch(np.arange(41), 0, 0)
    dataset = Images(x.numpy().astype(np.float32), y.numpy(), plain.class_names) if labelled else plain
    assert drawn(tiny_config, dataset, tmp_path).tolist() == [[*SHADES], [*SHADES[:2], 255]]


def test_without_classes_the_columns_are_filled_with_any_samples_each_once(tiny_config: Config, tmp_path: Path) -> None:
    """Two rows of three columns, as many as classes would be shown, of five samples."""
    config = from_dict({"sample": {"classes": 1}, "log": {"preview_classes": 3}}, tiny_config)
    assert config.previewed == [0, 0, 0]
    shades = drawn(config, Unlabelled(np.array([0, 1, 2, 0, 1])), tmp_path)
    assert sorted(shades.flatten().tolist()) == sorted([*SHADES, *SHADES[:2], 255])
    assert shades[1, 2] == 255
