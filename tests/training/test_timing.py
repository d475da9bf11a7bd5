"""Where the time of a run goes, and how much memory it took."""

from __future__ import annotations

import time

import pytest
import torch

from catgan.training.timing import PARTS, Pace, Stopwatch, peak_memory

CPU = torch.device("cpu")


def test_each_part_gets_its_own_time_and_a_reading_starts_anew() -> None:
    watch = Stopwatch(CPU)
    with watch.of("data"):
        time.sleep(0.02)
    began = watch.mark()
    time.sleep(0.01)
    watch.add("communication", began, watch.mark())
    elapsed, seconds = watch.read()
    assert tuple(seconds) == PARTS
    assert 0.02 <= seconds["data"] <= elapsed
    assert 0.01 <= seconds["communication"] <= elapsed
    assert seconds["checkpoint"] == seconds["evaluation"] == 0
    assert sum(seconds.values()) <= elapsed
    again, nothing = watch.read()
    assert again < elapsed
    assert not any(nothing.values())


def test_time_counts_where_the_part_failed_too() -> None:
    watch = Stopwatch(CPU)

    @watch.of("checkpoint")
    def save() -> None:
        time.sleep(0.01)
        raise ValueError("disk")

    with pytest.raises(ValueError, match="disk"):
        save()
    assert watch.read()[1]["checkpoint"] >= 0.01


def test_peak_memory_rises_by_what_is_allocated() -> None:
    before = peak_memory(CPU)
    held = torch.ones(100 * 2**20, dtype=torch.uint8)
    assert peak_memory(CPU) >= before
    assert peak_memory(CPU) > held.nbytes


def test_cpu_seconds_are_of_training_alone() -> None:
    def work(seconds: float) -> None:
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass

    watch = Stopwatch(CPU)
    watch.cpu()
    work(0.05)
    time.sleep(0.2)
    with watch.of("evaluation"):
        work(0.3)
    assert 0.05 <= watch.cpu() < 0.2
    assert watch.cpu() < 0.05, "counted from the last reading"


@pytest.mark.parametrize(("seconds", "steps"), [(0.5, 12), (15.0, 4), (100.0, 3)])
def test_the_pace_is_known_after_ten_steps_or_twenty_seconds_past_the_warm_up(
    seconds: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace, clock = Pace(CPU), 0.0
    monkeypatch.setattr(pace, "now", lambda: clock)
    for step in range(steps):
        assert pace.known is None
        with pace.of_step():
            clock += seconds + 1000 * (step < 2)
        clock += 7  # previews and the like
    assert pace.known == pytest.approx(seconds)
