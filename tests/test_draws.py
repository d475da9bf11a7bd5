"""Random numbers as a pure function of what they are for."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catgan.bounds import MAX_SEED
from catgan.draws import Purpose, normal, sample_z, stream, uniform

seeds = st.integers(0, MAX_SEED - 1)
positions = st.integers(0, 2**40)


@given(seeds, st.sampled_from(Purpose), positions)
def test_the_same_key_gives_the_same_numbers(seed: int, purpose: Purpose, position: int) -> None:
    assert torch.equal(normal(seed, purpose, position, (3, 2)), normal(seed, purpose, position, (3, 2)))
    assert torch.equal(uniform(seed, purpose, position, (3, 2)), uniform(seed, purpose, position, (3, 2)))


def test_seeds_purposes_and_positions_give_different_uncorrelated_numbers() -> None:
    keys = itertools.product((0, 1, MAX_SEED - 1), Purpose, (0, 1, 49_999))
    draws = torch.stack([normal(s, p, i, (1000,)) for s, p, i in keys])
    correlations = draws.corrcoef() - torch.eye(len(draws))
    assert correlations.abs().max() < 0.2  # 6 standard deviations


def test_purposes_have_the_numbers_that_checkpoints_rely_on() -> None:
    assert {p.name: p.value for p in Purpose} == {
        "Z": 1, "Z_GENERATOR": 2, "AUGMENT_REAL_D": 3, "AUGMENT_FAKE_D": 4, "AUGMENT_REAL_G": 5, "AUGMENT_FAKE_G": 6,
        "PENALTY_REAL": 7, "PENALTY_FAKE": 8, "DATA_ORDER": 9, "POSTERIOR": 10, "SAMPLE": 11, "EVALUATION_CLASSES": 12,
        "CLASSIFIER": 13, "MIRROR": 14,
    }  # fmt: skip


def test_numbers_are_float32_with_the_promised_distribution() -> None:
    n, u = normal(0, Purpose.Z, 0, (100, 100)), uniform(0, Purpose.Z, 0, (100, 100))
    assert n.dtype == u.dtype == torch.float32
    assert (n.mean().item(), n.std().item()) == pytest.approx((0, 1), abs=0.04)
    assert (u.mean().item(), u.var().item()) == pytest.approx((1 / 2, 1 / 12), abs=0.01)
    assert 0 <= u.min() <= u.max() < 1


@given(st.integers(1, 12), st.integers(1, 12))
def test_a_smaller_batch_draws_the_first_rows_of_a_larger_one(a: int, b: int) -> None:
    small, large = sorted((a, b))
    assert torch.equal(uniform(5, Purpose.Z, 3, (small, 4)), uniform(5, Purpose.Z, 3, (large, 4))[:small])


def test_draws_neither_read_nor_change_torchs_random_state() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = normal(0, Purpose.Z, 0, (4,))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(normal(0, Purpose.Z, 0, (4,)), first)


def test_neighbouring_positions_do_not_overlap() -> None:
    """However much one step draws, the next step's numbers are not among them."""
    long = stream(0, Purpose.Z, 0).integers(2**63, size=100_000)
    following = stream(0, Purpose.Z, 1).integers(2**63, size=1000)
    assert not set(long.tolist()) & set(following.tolist())


@given(st.lists(seeds, max_size=6))
def test_a_row_of_z_depends_on_its_seed_alone(values: list[int]) -> None:
    z = sample_z(values, 8)
    assert z.shape == (len(values), 8)
    for value, one in zip(values, z, strict=True):
        assert torch.equal(one, sample_z([value], 8)[0])


def test_different_seeds_give_different_z() -> None:
    assert len(torch.unique(sample_z(range(100), 4), dim=0)) == 100
