"""Whether the records bear a claim out: means and deviations over seeds, t tests, one word."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from catgan.studies.catalogue import Claim, Variant, Versus, Within
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

    @property
    def percent(self) -> float:
        """Difference of the means, per cent of the second."""
        reference = statistics.fmean(self.than)
        return 100 * (statistics.fmean(self.of) - reference) / abs(reference) if reference else math.nan


def key(variant: Variant) -> str:
    return f"{variant.study}/{variant.name}"


def judge(claim: Claim, records: Records) -> Verdict | None:
    """None where a variant has no records. Independent runs by Welch's test, two numbers of each run by the paired one."""
    of, than = versus(claim, records) if isinstance(claim, Versus) else within(claim, records)
    if not of or not than:
        return None
    if min(len(of), len(than)) < FEWEST:
        return Verdict(of, than, math.nan, "too few runs")
    p = p_value(of, than, paired=isinstance(claim, Within))
    return Verdict(of, than, p, word(claim.expected, statistics.fmean(of) - statistics.fmean(than), p))


def p_value(a: Sequence[float], b: Sequence[float], paired: bool) -> float:
    """Two-sided, of the t test; 0 or 1 where neither varies."""
    need("scipy", "a t test", "studies")
    from scipy import stats

    differences = [x - y for x, y in zip(a, b, strict=False)] if paired else []
    if len(set(differences)) == 1 or (len(set(a)) == len(set(b)) == 1):
        return float(a[0] == b[0])
    test = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
    return float(test.pvalue)


def word(expected: Literal["lower", "higher", "not lower"], difference: float, p: float) -> Word:
    """What a difference with this p value says about what was expected."""
    seen = p < SIGNIFICANT
    if expected == "not lower":
        return "disagrees" if seen and difference < 0 else "agrees"
    if not seen:
        return "no difference seen"
    return "agrees" if (difference < 0) == (expected == "lower") else "disagrees"


def versus(claim: Versus, records: Records) -> tuple[list[float], list[float]]:
    """Numbers of the runs of both variants, at one moment."""
    of, than = records.get(key(claim.of), ()), records.get(key(claim.than), ())
    if claim.at == "end" or not (of and than):
        return [r.number(claim.number) for r in of], [r.number(claim.number) for r in than]
    over = "step" if claim.at == "equal steps" else "cpu_seconds"
    # The moment that all runs have reached: runs of either variant take different times.
    at = min(r.curves[over][-1] for r in (*of, *than))
    return [r.course(claim.number, over, at) for r in of], [r.course(claim.number, over, at) for r in than]


def within(claim: Within, records: Records) -> tuple[list[float], list[float]]:
    """Two numbers of the same runs."""
    runs = records.get(key(claim.of), ())
    if claim.early == 1.0:
        return [r.number(claim.number) for r in runs], [r.number(claim.than_number) for r in runs]
    ends = [r.curves["step"][-1] for r in runs]
    early = [r.course(claim.than_number, "step", claim.early * end) for r, end in zip(runs, ends, strict=True)]
    return [r.course(claim.number, "step", end) for r, end in zip(runs, ends, strict=True)], early


def spread(values: Sequence[float]) -> float:
    """Standard deviation over seeds (n - 1); nan of a single run."""
    return statistics.stdev(values) if len(values) > 1 else math.nan
