"""Working ahead changes when things are computed, and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from catgan.data import prefetch


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_results_come_in_the_order_of_their_inputs_however_long_each_takes(threads: int) -> None:
    def slow_at_first(i: int) -> int:
        time.sleep(0.003 * (8 - i))
        return i * i

    assert list(prefetch(slow_at_first, range(8), threads, 4)) == [i * i for i in range(8)]


def test_the_next_results_are_computed_before_they_are_asked_for() -> None:
    started = [threading.Event() for _ in range(4)]
    results = prefetch(lambda i: started[i].set(), range(4), 1, 2)
    next(results)
    assert started[1].wait(5)
    assert started[2].wait(5)
    assert not started[3].is_set(), "no more than the depth may be under way"
    results.close()


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_is_raised_to_whoever_waits_at_its_turn(threads: int) -> None:
    def fails_at_two(i: int) -> int:
        if i == 2:
            raise ValueError("number two")
        return i

    results = prefetch(fails_at_two, range(9), threads, 3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="number two"):
        next(results)


def test_closing_ends_the_threads_and_starts_nothing_new() -> None:
    before = threading.active_count()
    calls = []

    def endless() -> Iterator[int]:
        i = 0
        while True:
            yield i
            i += 1

    results = prefetch(calls.append, endless(), 2, 5)
    next(results)
    results.close()
    assert threading.active_count() == before
    assert len(calls) <= 7


def test_reading_threads_compute_alone_and_leave_the_trainer_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(prefetch(lambda i: torch.get_num_threads(), range(3), 2, 2)) == [1, 1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
