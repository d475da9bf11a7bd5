"""Representation alignment: the loss, and the registration of raw images with their samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catgan.config import AugmentConfig
from catgan.objective import augment, register, representation
from catgan.objective.augment import PARAMETERS
from catgan.objective.representation import as_tokens

ALL = AugmentConfig()
MOVES = replace(ALL, color=0.0, cutout=0.0)

unit = st.floats(0, 1, exclude_max=True, width=32)


def features(count: int = 3, tokens: int = 5, dim: int = 8) -> Tensor:
    return torch.randn(count, tokens, dim)


def test_equal_directions_cost_nothing_and_opposite_ones_the_most() -> None:
    x = features()
    assert representation(x, 3 * x) == pytest.approx([0.0] * 3, abs=1e-6)
    assert representation(x, -0.1 * x) == pytest.approx([4.0] * 3, abs=1e-5)


def test_cls_counts_as_much_as_all_patches_together() -> None:
    x = features(2, 5)
    other = x.clone()
    other[0, 0] *= -1
    other[1, 1:] *= -1
    assert representation(x, other) == pytest.approx([2.0, 2.0], abs=1e-5)
    other = x.clone()
    other[:, 2] *= -1
    assert representation(x, other) == pytest.approx([0.5, 0.5], abs=1e-5)


def test_it_is_computed_in_float32() -> None:
    x = features()
    assert representation(x.bfloat16(), x).dtype == torch.float32


def test_the_target_gets_no_gradient_it_does_not_ask_for() -> None:
    predicted = features().requires_grad_()
    representation(predicted, features()).sum().backward()
    assert predicted.grad is not None
    assert predicted.grad.flatten(1).any(1).all()


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


# -- registration ------------------------------------------------------------------------------------------------------


def marked(size: int, at: tuple[int, int], channels: int, scale: int = 1) -> Tensor:
    """Zeros with a mark in one pixel, or in the block of pixels that it covers when enlarged."""
    x = torch.zeros(1, channels, size * scale, size * scale)
    x[..., at[0] * scale : (at[0] + 1) * scale, at[1] * scale : (at[1] + 1) * scale] = 1
    return x


@given(unit, unit, unit, st.tuples(st.integers(0, 31), st.integers(0, 31)), st.sampled_from([7, 8]))
def test_a_mark_in_the_image_stays_over_the_same_mark_in_its_latent(
    dy: float, dx: float, mirror: float, at: tuple[int, int], scale: int
) -> None:
    """224 or 256 pixels over 32 latent pixels: exactly 7 or 8 per latent pixel, also when both are mirrored."""
    u = torch.full((1, PARAMETERS), 0.5)
    u[0, 4], u[0, 5], u[0, 8] = dy, dx, mirror
    latent = augment(marked(32, at, 4), u, MOVES)
    image = register(marked(32, at, 3, scale), u, ALL, 32)
    enlarged = latent[:, :3].repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    assert torch.equal(image, enlarged)


def test_an_image_moves_seven_pixels_for_one_of_its_latent() -> None:
    u = torch.full((1, PARAMETERS), 0.5)
    u[0, 4] = 5.5 / 9  # the sixth of nine shifts, -4 to 4
    x = torch.rand(1, 3, 224, 224)
    assert torch.equal(register(x, u, MOVES, 32)[..., :-7, :], x[..., 7:, :])
    assert not register(x, u, MOVES, 32)[..., -7:, :].any()


def test_an_image_keeps_its_colours_and_is_not_cut() -> None:
    u = torch.rand(8, PARAMETERS)
    u[:, 4:6] = 0.5
    u[:, 8] = 0.9
    x = torch.rand(8, 3, 16, 16)
    assert torch.equal(register(x, u, ALL, 8), x)
    assert not torch.equal(augment(x, u, ALL), x)
