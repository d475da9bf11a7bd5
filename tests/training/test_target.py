"""What a representation head is trained towards."""

from __future__ import annotations

import pytest
import torch

from catgan.training.target import as_tokens


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
