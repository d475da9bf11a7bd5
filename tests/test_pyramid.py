"""The resize operators r_k."""

from __future__ import annotations

import pytest
import torch

from catgan.pyramid import Pyramid, resize


def test_area_down_is_the_mean_of_each_block() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(resize(x, 2), x.view(2, 3, 2, 4, 2, 4).mean((3, 5)), atol=1e-6)


def test_resize_to_the_same_size_changes_nothing() -> None:
    x = torch.randn(1, 1, 4, 4)
    assert all(torch.equal(resize(x, 4, mode, mode), x) for mode in ("area", "bilinear", "bicubic", "nearest"))


@pytest.mark.parametrize("down", ["area", "bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("up", ["bilinear", "bicubic", "nearest"])
def test_every_filter_keeps_constants(down: str, up: str) -> None:
    x = torch.full((1, 2, 8, 8), 0.7)
    assert torch.allclose(resize(resize(x, 2, down), 8, up=up), x, atol=1e-6)


@pytest.mark.parametrize("down", ["area", "bilinear", "bicubic"])
def test_filters_towards_fewer_pixels_average_what_they_cannot_show(down: str) -> None:
    """The finest checkerboard goes to its mean, zero: no aliasing (nearest, which picks pixels, is exempt)."""
    board = torch.ones(16, 16)
    board[::2, 1::2] = board[1::2, ::2] = -1
    assert resize(board[None, None], 4, down)[0, 0, 1:3, 1:3].abs().max() < 0.05


def test_filters_differ() -> None:
    x = torch.randn(1, 1, 8, 8)
    assert len({resize(x, 4, down).sum().item() for down in ("area", "bilinear", "bicubic", "nearest")}) == 4
    assert len({resize(x, 16, up=up).square().sum().item() for up in ("bilinear", "bicubic", "nearest")}) == 3


def test_area_pooling_composes() -> None:
    x = torch.randn(2, 1, 16, 16)
    assert torch.allclose(resize(resize(x, 8), 4), resize(x, 4), atol=1e-6)


def test_stages_go_to_their_own_scale_and_a_sample_goes_to_all() -> None:
    pyramid, h = Pyramid((2, 4, 8)), torch.randn(3, 5, 2, 8, 8)
    views = pyramid(h)
    assert [v.shape for v in views] == [(5, 2, 2, 2), (5, 2, 4, 4), (5, 2, 8, 8)]
    assert all(torch.equal(v, resize(h[k], n)) for k, (v, n) in enumerate(zip(views, (2, 4, 8), strict=True)))
    assert torch.equal(views[-1], h[-1])
    sample = h[-1]
    assert all(torch.equal(v, resize(sample, n)) for v, n in zip(pyramid(sample), (2, 4, 8), strict=True))


def test_a_pyramid_uses_its_own_filters() -> None:
    x = torch.randn(1, 1, 8, 8)
    pyramid = Pyramid((2, 8), down="nearest", up="nearest")
    coarse = pyramid(x)[0]
    assert torch.equal(coarse, x[..., ::4, ::4])
    assert torch.equal(pyramid.enlarge(coarse), coarse.repeat_interleave(4, -1).repeat_interleave(4, -2))


def test_a_wrong_number_of_stages_is_an_error() -> None:
    with pytest.raises(ValueError, match="argument 2 is"):
        Pyramid((2, 4, 8))(torch.zeros(2, 1, 1, 8, 8))


def test_noise_added_at_full_size_shrinks_by_the_square_of_the_scale_ratio() -> None:
    noise = torch.randn(64, 4, 32, 32)
    variances = [x.var().item() for x in Pyramid((4, 8, 16, 32))(noise)]
    assert variances == pytest.approx([1 / 64, 1 / 16, 1 / 4, 1], rel=0.1)


def test_enlarging_interpolates_between_the_centres_of_pixels() -> None:
    row = torch.tensor([0.0, 1.0]).expand(1, 1, 2, 2)
    assert Pyramid((2, 4)).enlarge(row)[0, 0, 0].tolist() == [0.0, 0.25, 0.75, 1.0]
