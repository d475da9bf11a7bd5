"""Whether the records bear a claim out: means and deviations over seeds, t tests, one word."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from catgan.studies.design import Claim, Variant, Versus, Within
from catgan.studies.records import RunRecord
from catgan.system.packages import need

SIGNIFICANT = 0.05  # two-sided p value below which a difference counts as seen
FEWEST = 3  # runs without which nothing is said
Word = Literal["agrees", "no difference seen", "disagrees", "too few runs"]
Records = Mapping[str, Sequence[RunRecord]]  # of a testbed, by STUDY/VARIANT, seeds ascending


@dataclass(frozen=True)
class Verdict:
    """A claim beside the records of a testbed."""

    of: list[float]  # a number per seed
    than: list[float]
    p: float  # nan where it cannot be had
    word: Word
    interval: tuple[float, float] = (math.nan, math.nan)  # of the difference, at 95 %

    @property
    def percent(self) -> float:
        """Difference of the means, per cent of the second."""
        return self.percent_of(statistics.fmean(self.of) - statistics.fmean(self.than))

    def percent_of(self, difference: float) -> float:
        """A difference in per cent of the mean of `than`; nan if that is 0."""
        reference = abs(statistics.fmean(self.than))
        return 100 * difference / reference if reference else math.nan


def key(variant: Variant) -> str:
    return f"{variant.study}/{variant.name}"


def judge(claim: Claim, records: Records) -> Verdict | None:
    """None where a variant has no records. Independent runs by Welch's test, two numbers of each run by the paired one."""
    of, than = versus(claim, records) if isinstance(claim, Versus) else within(claim, records)
    if not of or not than:
        return None
    if min(len(of), len(than)) < FEWEST:
        return Verdict(of, than, math.nan, "too few runs")
    p, interval = t_test(of, than, paired=isinstance(claim, Within))
    return Verdict(of, than, p, word(claim.expected, statistics.fmean(of) - statistics.fmean(than), p), interval)


def t_test(a: Sequence[float], b: Sequence[float], paired: bool) -> tuple[float, tuple[float, float]]:
    """The two-sided p value, and the interval in which the difference of the means lies at 95 %.

    Where nothing varies 0 or 1, and the difference itself.
    """
    need("scipy", "a t test", "studies")
    from scipy import stats

    differences = [x - y for x, y in zip(a, b, strict=False)] if paired else []
    if len(set(differences)) == 1 or (len(set(a)) == len(set(b)) == 1):
        return float(a[0] == b[0]), (a[0] - b[0], a[0] - b[0])
    test = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
    low, high = test.confidence_interval(0.95)
    return float(test.pvalue), (float(low), float(high))


def word(expected: Literal["lower", "higher"], difference: float, p: float) -> Word:
    """What a difference with this p value says about what was expected."""
    if not p < SIGNIFICANT:
        return "no difference seen"
    return "agrees" if (difference < 0) == (expected == "lower") else "disagrees"


def versus(claim: Versus, records: Records) -> tuple[list[float], list[float]]:
    """Numbers of the runs of both variants: at the end, where both have computed for equal CPU time, or means of courses."""
    of, than = (finished(records, v) for v in (claim.of, claim.than))
    if claim.at == "end" or not (of and than):
        return [r.number(claim.number) for r in of], [r.number(claim.number) for r in than]
    if claim.at == "over training":
        return [statistics.fmean(r.curves[claim.number]) for r in of], [
            statistics.fmean(r.curves[claim.number]) for r in than
        ]
    spent = min(seconds_per_step(runs) * steps(runs) for runs in (of, than))

    def then(runs: Sequence[RunRecord]) -> list[float]:
        return [r.course(claim.number, "step", spent / seconds_per_step(runs)) for r in runs]

    return then(of), then(than)


def finished(records: Records, variant: Variant) -> list[RunRecord]:
    """The records of a variant, without runs that diverged."""
    return [r for r in records.get(key(variant), ()) if not r.diverged]


def steps(runs: Sequence[RunRecord]) -> int:
    """How long the runs of a variant are."""
    return runs[0].config.training.steps


def seconds_per_step(runs: Sequence[RunRecord]) -> float:
    """CPU seconds of a step, mean over the runs of a variant."""
    return statistics.fmean(r.cpu_seconds / r.config.training.steps for r in runs)


def within(claim: Within, records: Records) -> tuple[list[float], list[float]]:
    """Two numbers of the same runs."""
    runs = finished(records, claim.of)
    if claim.early == 1.0:
        return [r.number(claim.number) for r in runs], [r.number(claim.than_number) for r in runs]
    ends = [r.curves["step"][-1] for r in runs]
    early = [r.course(claim.than_number, "step", claim.early * end) for r, end in zip(runs, ends, strict=True)]
    return [r.course(claim.number, "step", end) for r, end in zip(runs, ends, strict=True)], early
