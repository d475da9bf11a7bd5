from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tests.studies.conftest import made_up

from catgan.studies.catalogue import OFF, ON
from catgan.studies.design import Testbed, Versus, Within
from catgan.studies.statistics import judge, t_test, word

LOWER = Versus("", "-", "frechet_distance", ON, OFF, "lower")


def records(quick: Testbed, on: list[float], off: list[float]):
    return {
        "consistency/on": [made_up(ON, quick, i, frechet_distance=v) for i, v in enumerate(on)],
        "consistency/off": [made_up(OFF, quick, i, frechet_distance=v) for i, v in enumerate(off)],
    }


def test_the_p_value_is_welchs() -> None:
    # By hand: means 2 and 5, variances 1 and 4, three each: t = -3 / sqrt(5/3) = -2.3238, 2.9412 degrees of freedom.
    p, (low, high) = t_test([1.0, 2.0, 3.0], [3.0, 5.0, 7.0], paired=False)
    assert p == pytest.approx(0.1043, abs=2e-4)
    assert (low + high) / 2 == pytest.approx(-3)
    assert high - low == pytest.approx(2 * 3.2202 * 1.29099, rel=1e-3), "t at 97.5 % for 2.9412 degrees of freedom"


def test_two_numbers_of_the_same_runs_are_paired() -> None:
    # Differences 1, 1.2, 0.8: mean 1, standard error 0.1155, t = 8.66 with two degrees of freedom.
    assert t_test([11.0, 6.2, 1.8], [10.0, 5.0, 1.0], paired=True)[0] == pytest.approx(0.0131, abs=2e-4)
    assert t_test([11.0, 6.2, 1.8], [10.0, 5.0, 1.0], paired=False)[0] > 0.5


@pytest.mark.parametrize(
    ("expected", "difference", "p", "said"),
    [
        ("lower", -1, 0.01, "agrees"),
        ("lower", 1, 0.01, "disagrees"),
        ("lower", -1, 0.2, "no difference seen"),
        ("higher", 1, 0.01, "agrees"),
        ("higher", -1, 0.01, "disagrees"),
        ("higher", 1, math.nan, "no difference seen"),
    ],
)
def test_the_word_follows_from_sign_and_p_value(expected, difference: float, p: float, said: str) -> None:
    assert word(expected, difference, p) == said


def test_a_clear_difference_agrees_or_disagrees(quick: Testbed) -> None:
    verdict = judge(LOWER, records(quick, [1.0, 1.1, 0.9], [2.0, 2.1, 1.9]))
    assert verdict is not None
    assert verdict.word == "agrees"
    assert verdict.percent == pytest.approx(-50)
    verdict = judge(LOWER, records(quick, [2.0, 2.1, 1.9], [1.0, 1.1, 0.9]))
    assert verdict is not None
    assert verdict.word == "disagrees"


def test_two_runs_say_nothing_and_none_is_no_verdict(quick: Testbed) -> None:
    verdict = judge(LOWER, records(quick, [1.0, 1.1], [2.0, 2.1]))
    assert verdict is not None
    assert verdict.word == "too few runs"
    assert math.isnan(verdict.p)
    assert judge(LOWER, records(quick, [1.0, 1.1, 1.2], [])) is None


def test_at_equal_cpu_time_the_slower_variant_is_looked_at_earlier(quick: Testbed) -> None:
    found = records(quick, [1.0, 1.1, 0.9], [2.0, 2.1, 1.9])
    found["consistency/on"] = [replace(r, cpu_seconds=200.0) for r in found["consistency/on"]]  # twice as slow
    verdict = judge(Versus("", "-", "frechet_distance", ON, OFF, "lower", "equal CPU time"), found)
    assert verdict is not None
    assert verdict.of == pytest.approx([2.0, 2.2, 1.8]), "halfway, where it is twice what it is at the end"
    assert verdict.than == pytest.approx([2.0, 2.1, 1.9])


def test_over_training_the_mean_of_the_course_counts(quick: Testbed) -> None:
    verdict = judge(
        Versus("", "-", "frechet_distance", ON, OFF, "lower", "over training"),
        records(quick, [1.0, 1.1, 0.9], [2.0, 2.1, 1.9]),
    )
    assert verdict is not None
    assert verdict.of == pytest.approx([1.5, 1.65, 1.35])


def test_runs_that_diverged_are_no_numbers(quick: Testbed) -> None:
    found = records(quick, [1.0, 1.1, 0.9, 1.0], [2.0, 2.1, 1.9])
    found["consistency/on"][3] = replace(found["consistency/on"][3], final={}, curves={}, diverged="a loss at step 3")
    verdict = judge(LOWER, found)
    assert verdict is not None
    assert verdict.of == [1.0, 1.1, 0.9]


def test_a_number_grows_over_training_within_the_runs(quick: Testbed) -> None:
    claim = Within("", "-", "frechet_distance", OFF, "frechet_distance", "lower", early=0.5)
    verdict = judge(claim, records(quick, [], [2.0, 2.1, 1.9]))
    assert verdict is not None
    assert verdict.than == pytest.approx([4.0, 4.2, 3.8])
    assert verdict.word == "agrees"
