"""What a representation head is trained towards."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images
from catgan.images import from_bytes
from catgan.pyramid import resize
from catgan.training.target import ComputedTarget, as_tokens


def test_tokens_of_an_equal_grid_keep_their_values_and_places() -> None:
    cls, patches = torch.randn(2, 8), torch.randn(2, 3, 3, 8)
    tokens = as_tokens(cls, patches, 3)
    assert torch.equal(tokens[:, 0], cls)
    assert torch.equal(tokens[:, 1 + 3 * 1 + 2], patches[:, 1, 2])


@pytest.mark.parametrize("grid", [2, 8])
def test_tokens_of_another_grid_are_resized_smoothly(grid: int) -> None:
    """A linear ramp stays one away from the border."""
    ramp = torch.arange(4.0).view(1, 1, 4, 1).expand(1, 4, 4, 2)
    tokens = as_tokens(torch.zeros(1, 2), ramp, grid)[0, 1:].view(grid, grid, 2)
    expected = (torch.arange(grid) + 0.5) * 4 / grid - 0.5
    assert tokens.shape == (grid, grid, 2)
    assert torch.allclose(
        tokens[0, grid // 4 : -(grid // 4) or None, 0], expected[grid // 4 : -(grid // 4) or None], atol=0.2
    )
    assert torch.allclose(tokens[:, 0], tokens[:1, 0].expand(grid, 2), atol=1e-5)


@pytest.mark.parametrize("pixels", [8, 12])
def test_images_move_by_the_pixels_of_the_sample_where_they_are_the_sample(tiny_config: Config, pixels: int) -> None:
    """Before they are resized for the encoder; images of another size after it, where shifts are rounded."""
    seen: list[torch.Tensor] = []

    class Watching:
        dim, identity = 3, "watching"

        def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(images)
            return images.mean((2, 3)), images.movedim(1, -1)

    config = from_dict({"encoder": {"size": 16}}, tiny_config)
    target = ComputedTarget(Watching(), config, Images(np.zeros((1, 1, 8, 8), np.float32), np.zeros(1), ("a",)))
    read = torch.randint(0, 256, (2, 3, pixels, pixels), dtype=torch.uint8)
    target.tokens(read, torch.float32, lambda images: images.roll(1, -1))
    x = from_bytes(read)
    first = resize(x.roll(1, -1), 16, "bicubic", "bicubic")
    last = resize(x, 16, "bicubic", "bicubic").roll(1, -1)
    assert torch.equal(seen[0], first if pixels == config.sample.size else last)
    assert not torch.equal(first, last)
