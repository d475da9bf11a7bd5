"""The order of training samples."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from catgan.data import rows

seeds = st.integers(0, 2**63 - 1)


@given(seeds, st.integers(1, 30), st.integers(1, 50))
def test_each_epoch_has_every_row_exactly_once_whatever_the_batch(seed: int, size: int, batch: int) -> None:
    steps = -(-3 * size // batch)
    order = np.concatenate([rows(seed, step * batch, batch, size) for step in range(steps)])
    for epoch in range(3):
        assert sorted(order[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(seeds, st.integers(1, 30), st.integers(0, 200), st.integers(1, 90))
def test_the_row_of_a_sample_depends_on_its_global_number_alone(seed: int, size: int, start: int, count: int) -> None:
    """So batch size, interruptions and micro-batches leave the order as it is."""
    together = rows(seed, start, count, size)
    assert together.tolist() == [rows(seed, number, 1, size)[0] for number in range(start, start + count)]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [rows(seed, epoch * 50, 50, 50).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] != sorted(orders[0])
