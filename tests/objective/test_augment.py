"""Differentiable augmentation: one row of uniform numbers decides everything about a sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from catgan.config import AugmentConfig
from catgan.objective.augment import PARAMETERS, augment, register, shifts

NONE = AugmentConfig(color=0.0, translation=0.0, cutout=0.0, flip=0.0)
ALL = AugmentConfig()
GEOMETRY = replace(ALL, color=0.0)
MOVES = replace(ALL, color=0.0, cutout=0.0)

unit = st.floats(0, 1, exclude_max=True, width=32)
sizes = st.sampled_from([4, 8, 16, 32])


def numbers(count: int = 6) -> Tensor:
    return torch.rand(count, PARAMETERS)


def row(**changes: float) -> Tensor:
    """One row of numbers that centres everything, with some of them changed: c0..c3, dy, dx, cy, cx, flip."""
    names = ("c0", "c1", "c2", "c3", "dy", "dx", "cy", "cx", "flip")
    return torch.tensor([[changes.get(n, 0.5) for n in names]])


def pixels(size: int, channels: int = 1, count: int = 1) -> Tensor:
    """All pixels different and none of them zero."""
    return torch.arange(1.0, count * channels * size * size + 1).view(count, channels, size, size)


def test_the_zero_policy_is_the_identity() -> None:
    x, h = torch.randn(6, 2, 8, 8), torch.randn(3, 6, 2, 8, 8)
    assert torch.equal(augment(x, numbers(), NONE), x)
    assert torch.equal(augment(h, numbers(), NONE), h)


@pytest.mark.parametrize("policy", [ALL, GEOMETRY, replace(NONE, color=1.0)])
def test_every_stage_gets_the_augmentation_of_its_sample(policy: AugmentConfig) -> None:
    h, u = torch.randn(3, 6, 2, 8, 8), numbers()
    out = augment(h, u, policy)
    for k in range(3):
        assert torch.equal(out[k], augment(h[k], u, policy, anchor=h[-1]))


def test_the_colour_means_of_a_fake_are_those_of_its_last_stage() -> None:
    h, u = torch.randn(3, 6, 2, 8, 8), numbers()
    policy = replace(NONE, color=1.0)
    out = augment(h, u, policy)
    assert torch.equal(out[-1], augment(h[-1], u, policy))
    assert not torch.allclose(out[0], augment(h[0], u, policy))


def test_samples_are_augmented_by_their_own_row() -> None:
    x, u = torch.randn(6, 2, 8, 8), numbers()
    out = augment(x, u, ALL)
    for i in range(6):
        assert torch.equal(out[i : i + 1], augment(x[i : i + 1], u[i : i + 1], ALL))


def test_augmentation_is_differentiable() -> None:
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    u = row(c0=0.0, c1=0.9, c2=0.3, c3=0.8, dy=0.9, cy=0.2).double().expand(2, -1)
    assert torch.autograd.gradcheck(lambda t: augment(t, u, ALL), x)
    h = torch.randn(2, 2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: augment(t, u, ALL), h)


@pytest.mark.parametrize("stages", [False, True])
def test_a_perturbed_twin_differs_by_the_augmented_noise(stages: bool) -> None:
    """Geometric operations are linear: same augmentation, so nothing but the moved and erased noise is left."""
    shape = (3, 6, 2, 8, 8) if stages else (6, 2, 8, 8)
    x, noise, u = torch.randn(shape).double(), torch.randn(shape).double(), numbers()
    twin, plain = augment(x + 0.01 * noise, u, GEOMETRY), augment(x, u, GEOMETRY)
    assert torch.allclose(twin - plain, augment(0.01 * noise, u, GEOMETRY), atol=1e-14)


def test_with_the_samples_own_anchor_colour_scales_the_noise_and_nothing_else() -> None:
    x, noise = torch.randn(1, 2, 8, 8).double(), torch.randn(1, 2, 8, 8).double()
    u = row(c0=0.0, c1=0.9, c2=0.7, c3=0.1)
    policy = replace(NONE, color=1.0)
    twin, plain = augment(x + noise, u, policy, anchor=x), augment(x, u, policy, anchor=x)
    assert torch.allclose(twin - plain, noise * 1.4 * 0.6, atol=1e-6)


# -- colour ------------------------------------------------------------------------------------------------------------

COLOUR = replace(NONE, color=0.5)


def test_colour_changes_samples_with_its_probability() -> None:
    x, u = torch.randn(400, 1, 4, 4), numbers(400)
    changed = (augment(x, u, COLOUR) != x).flatten(1).any(1)
    assert torch.equal(changed, u[:, 0] < 0.5)
    assert (augment(x, u, replace(NONE, color=1.0)) != x).flatten(1).any(1).all()


@pytest.mark.parametrize(("u", "shift"), [(0.0, -0.5), (0.5, 0.0), (0.9, 0.4)])
def test_brightness_shifts_by_up_to_a_half(u: float, shift: float) -> None:
    x = torch.randn(1, 3, 4, 4)
    assert torch.allclose(augment(x, row(c0=0.0, c1=u), COLOUR), x + shift, atol=1e-6)


@pytest.mark.parametrize(("u", "factor"), [(0.0, 0.0), (0.5, 1.0), (0.9, 1.8)])
def test_saturation_moves_channels_about_their_mean(u: float, factor: float) -> None:
    x = torch.randn(1, 3, 4, 4)
    grey = x.mean(1, keepdim=True)
    assert torch.allclose(augment(x, row(c0=0.0, c2=u), COLOUR), grey + factor * (x - grey), atol=1e-6)


@pytest.mark.parametrize(("u", "factor"), [(0.0, 0.5), (0.5, 1.0), (0.9, 1.4)])
def test_contrast_moves_pixels_about_the_mean_of_the_sample(u: float, factor: float) -> None:
    x = torch.randn(1, 3, 4, 4)
    assert torch.allclose(augment(x, row(c0=0.0, c3=u), COLOUR), x.mean() + factor * (x - x.mean()), atol=1e-6)


# -- translation -------------------------------------------------------------------------------------------------------


def moved(x: Tensor, dy: int, dx: int) -> Tensor:
    """x[i + dy, j + dx] at (i, j), zeros outside."""
    size = x.shape[-1]
    out = torch.zeros_like(x)
    for i in range(max(0, -dy), min(size, size - dy)):
        for j in range(max(0, -dx), min(size, size - dx)):
            out[..., i, j] = x[..., i + dy, j + dx]
    return out


@given(unit, unit, sizes)
def test_translation_moves_by_whole_pixels_up_to_an_eighth_with_zeros_moving_in(
    dy: float, dx: float, size: int
) -> None:
    x, middle = pixels(size, channels=2), size // 2
    out = augment(x, row(dy=dy, dx=dx), replace(NONE, translation=0.125))
    source = int(out[0, 0, middle, middle]) - 1  # which pixel came to the middle
    down, right = source // size - middle, source % size - middle
    assert max(abs(down), abs(right)) <= max(1, size // 8)
    assert torch.equal(out, moved(x, down, right))


@given(st.sampled_from([8, 16, 32]), st.sampled_from([0.125, 0.25, 1.0]))
def test_every_shift_is_equally_likely(size: int, ratio: float) -> None:
    reach = int(size * ratio)
    u = torch.from_numpy((np.arange(2 * reach + 1) + 0.5) / (2 * reach + 1)).float()
    assert shifts(u, size, ratio).tolist() == list(range(-reach, reach + 1))
    last = torch.tensor([0.0, 1 - 2**-24])  # the smallest and the largest uniform number
    assert shifts(last, size, ratio).tolist() == [-reach, reach]


# -- cutout ------------------------------------------------------------------------------------------------------------


@given(unit, unit, sizes)
def test_cutout_erases_a_square_of_half_the_side_at_most_and_nothing_else(cy: float, cx: float, size: int) -> None:
    x = pixels(size, channels=2)
    out = augment(x, row(cy=cy, cx=cx), replace(NONE, cutout=0.5))
    erased = (out == 0).all(1)[0]
    assert torch.equal(out, x * ~erased)
    rows, columns = erased.any(1), erased.any(0)
    assert torch.equal(erased, rows[:, None] & columns[None, :])  # a rectangle
    for side in (rows, columns):
        where = side.nonzero().flatten().tolist()
        assert size // 4 <= len(where) <= size // 2  # cut off at the border by half at most
        assert where == list(range(where[0], where[-1] + 1))


def test_a_central_cutout_is_a_full_square() -> None:
    out = augment(torch.ones(1, 1, 8, 8), row(), replace(NONE, cutout=0.5))
    expected = torch.ones(8, 8)
    expected[2:6, 2:6] = 0
    assert torch.equal(out[0, 0], expected)


# -- flip --------------------------------------------------------------------------------------------------------------


def test_flip_mirrors_left_and_right_with_its_probability() -> None:
    x, u = pixels(4, count=200), numbers(200)
    assert torch.equal(augment(x, u, replace(NONE, flip=1.0)), x.flip(-1))
    assert torch.equal(augment(x, u, replace(NONE, flip=0.0)), x)
    out = augment(x, u, replace(NONE, flip=0.4))
    flipped = (out != x).flatten(1).any(1)
    assert torch.equal(flipped, u[:, 8] < 0.4)
    assert torch.equal(out[flipped], x[flipped].flip(-1))


# -- registration of raw images with their samples ---------------------------------------------------------------------


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


def test_gats_ratio_hardly_moves_an_image() -> None:
    """Four pixels of the latent are 28 of the image, or four sevenths of one."""
    u = torch.full((1, PARAMETERS), 0.5)
    u[0, 4] = 8.5 / 9  # the last of nine shifts
    x = torch.rand(1, 3, 224, 224)
    assert torch.equal(register(x, u, replace(MOVES, register="gat"), 32)[..., :-1, :], x[..., 1:, :])


def test_an_image_keeps_its_colours_and_is_not_cut() -> None:
    u = torch.rand(8, PARAMETERS)
    u[:, 4:6] = 0.5
    u[:, 8] = 0.9
    x = torch.rand(8, 3, 16, 16)
    assert torch.equal(register(x, u, ALL, 8), x)
    assert not torch.equal(augment(x, u, ALL), x)
