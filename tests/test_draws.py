"""Random numbers as a pure function of what they are for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from catgan import draws
from catgan.bounds import MAX_SEED
from catgan.draws import Purpose, normal, philox, sample_z, stream, uniform

seeds = st.integers(0, MAX_SEED - 1)
positions = st.integers(0, 2**40)


@given(seeds, st.sampled_from(Purpose), positions)
def test_the_same_key_gives_the_same_numbers(seed: int, purpose: Purpose, position: int) -> None:
    assert torch.equal(normal(seed, purpose, position, range(3), (2,)), normal(seed, purpose, position, range(3), (2,)))
    assert torch.equal(
        uniform(seed, purpose, position, range(3), (2,)), uniform(seed, purpose, position, range(3), (2,))
    )


def test_seeds_purposes_and_positions_give_different_uncorrelated_numbers() -> None:
    keys = itertools.product((0, 1, MAX_SEED - 1), Purpose, (0, 1, 49_999))
    drawn = torch.stack([normal(s, p, i, range(1), (1000,))[0] for s, p, i in keys])
    correlations = drawn.corrcoef() - torch.eye(len(drawn))
    assert correlations.abs().max() < 0.2  # 6 standard deviations


def test_purposes_have_the_numbers_that_checkpoints_rely_on() -> None:
    assert {p.name: p.value for p in Purpose} == {
        "Z": 1, "Z_GENERATOR": 2, "AUGMENT_REAL_D": 3, "AUGMENT_FAKE_D": 4, "AUGMENT_REAL_G": 5, "AUGMENT_FAKE_G": 6,
        "PENALTY_REAL": 7, "PENALTY_FAKE": 8, "DATA_ORDER": 9, "POSTERIOR": 10, "SAMPLE": 11, "EVALUATION_CLASSES": 12,
        "CLASSIFIER": 13, "MIRROR": 14, "LEVELS_REAL_D": 15, "LEVELS_FAKE_D": 16, "LEVELS_REAL_G": 17,
        "LEVELS_FAKE_G": 18, "ROTATIONS": 19,
    }  # fmt: skip


def test_numbers_are_float32_with_the_promised_distribution() -> None:
    n, u = normal(0, Purpose.Z, 0, range(1000), (1000,)), uniform(0, Purpose.Z, 0, range(1000), (1000,))
    assert n.dtype == u.dtype == torch.float32
    assert 0 <= u.min() <= u.max() < 1
    assert scipy.stats.kstest(n.flatten().numpy(), "norm").pvalue > 0.01
    assert scipy.stats.kstest(u.flatten().numpy(), "uniform").pvalue > 0.01
    moments = [float(n.double().pow(k).mean()) for k in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.02)
    for z in (2, 3, 4):
        assert int((n.abs() > z).sum()) == pytest.approx(
            2e6 * scipy.stats.norm.sf(z), abs=5 * (2e6 * scipy.stats.norm.sf(z)) ** 0.5
        )


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0,) * 4, (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_generator_is_philox(counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]) -> None:
    """Its authors' test vectors, in NumPy and in PyTorch."""
    for make in (np.array, torch.tensor):
        assert tuple(int(w[0]) for w in philox(tuple(make([c]) for c in counter), key)) == words


@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 30))
def test_some_samples_draw_what_they_have_in_the_whole_batch(first: int, count: int, numbers: int) -> None:
    for draw in (normal, uniform):
        whole = draw(5, Purpose.Z, 3, range(first + count), (numbers,))
        assert torch.equal(draw(5, Purpose.Z, 3, range(first, first + count), (numbers,)), whole[first:])
        assert torch.equal(draw(5, Purpose.Z, 3, [first], (numbers,))[0], whole[first])
        more = draw(5, Purpose.Z, 3, range(first + count), (2, numbers))  # and the shape is of no matter
        assert torch.equal(more.flatten(1)[:, :numbers], whole)


def test_a_device_draws_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """By PyTorch's integers in place of NumPy's: here on tensors of the CPU."""
    expected = [draw(7, Purpose.Z, 2**35 + 1, range(5, 70), (3, 7)) for draw in (normal, uniform)]
    monkeypatch.setattr(draws, "in_numpy", lambda device, count: False)
    found = [draw(7, Purpose.Z, 2**35 + 1, range(5, 70), (3, 7)) for draw in (normal, uniform)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("step", [0, 5, 2**35 + 1])
def test_a_step_whose_number_is_on_the_device_draws_the_same_bits(step: int) -> None:
    for draw in (normal, uniform):
        for samples in (range(5, 70), [3, 8, 20]):
            found = draw(7, Purpose.Z, torch.tensor(step), samples, (3, 7))
            assert torch.equal(found, draw(7, Purpose.Z, step, samples, (3, 7)))


def test_draws_neither_read_nor_change_torchs_random_state() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = normal(0, Purpose.Z, 0, range(4), ())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(normal(0, Purpose.Z, 0, range(4), ()), first)


def test_neighbouring_epochs_do_not_overlap() -> None:
    """However much one epoch draws, the next one's numbers are not among them."""
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
