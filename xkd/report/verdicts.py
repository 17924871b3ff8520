"""Verdicts on hypotheses: paired t-tests over seeds, corrected over all hypotheses of a table.

A hypothesis says in which region the true difference between two rows lies: "above" is (0, inf), "below" (-inf, 0),
"equal within M" (-M, M). The difference is shown to lie there if one-sided t-tests at the same level show it to be
above the lower bound and below the upper one; for "equal within" these are the two one-sided tests of Schuirmann
(1987). The hypothesis is contradicted if a test shows that the difference lies outside.

Holm's correction (1979) is made twice: over the tests for all hypotheses, and over the tests against all of them. So in
at most 5 % of tables is anything called supported that is not true, however the figures depend on each other, and in at
most 5 % is anything called contradicted that is true.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from xkd.report.statistics import compare

ERROR_RATE = 0.05  # of a false "supported" in a whole table, and of a false "contradicted"
POWER = 0.8
MOST_SEEDS = 10_000
SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
Region = tuple[float, float]


@dataclass(frozen=True)
class Evidence:
    """What the seeds say about one hypothesis. None: not defined, for the reason in `reason`.

    Attributes:
        region: where the hypothesis says that the true difference lies, in points.
        seeds: how many pairs there are.
        difference, sd: mean and standard deviation (n - 1) of the differences, in points.
        interval: 95 % confidence interval of the mean difference, uncorrected.
        p, p_against: uncorrected p-values of the tests for and against the hypothesis; 1 where nothing can be tested.
        reason: why nothing can be tested; "" where it can.
    """

    region: Region
    seeds: int = 0
    difference: float | None = None
    sd: float | None = None
    interval: tuple[float, float] | None = None
    p: float = 1.0
    p_against: float = 1.0
    reason: str = ""

    @property
    def effect(self) -> float | None:
        """Cohen's d_z: the mean difference in units of the standard deviation of the differences."""
        return self.difference / self.sd if self.sd and not self.reason and self.difference is not None else None


@dataclass(frozen=True)
class Verdict:
    """The verdict on one hypothesis among all of a table.

    Attributes:
        word: supported, contradicted or undecided.
        p, p_against: corrected by Holm; a test decides where it is at most `ERROR_RATE`.
        goal: where the difference lies, inside or outside the hypothesis' region, if the observed one is the true one.
        level: what an uncorrected p must reach to show that, given what is decided already. Both are None where the
            verdict is decided or nothing can be tested.
    """

    evidence: Evidence
    word: str
    p: float
    p_against: float
    goal: Region | None = None
    level: float | None = None

    @cached_property
    def seeds_needed(self) -> int | None:
        """The total number of seeds that decides with a probability of `POWER` if the observed values are true.

        None where decided, where nothing can be tested, and above `MOST_SEEDS`.
        """
        if self.goal is None or self.level is None or self.evidence.difference is None or self.evidence.sd is None:
            return None
        return seeds_needed(self.evidence.difference, self.evidence.sd, self.goal, self.level)


def region_of(direction: str) -> Region:
    """Returns where "above", "below" or "equal within M" says that a difference lies, in points."""
    known = {"above": (0.0, math.inf), "below": (-math.inf, 0.0)}
    if direction in known:
        return known[direction]
    margin = float(direction.removeprefix("equal within "))
    return -margin, margin


def judge(values: Sequence[float], others: Sequence[float], direction: str) -> Evidence:
    """Tests whether `values` differ from `others` as `direction` says, seed by seed.

    Args:
        values, others: one value per seed, in percent, in the same order.
        direction: above, below, or equal within M (points).
    """
    found, differences = Evidence(region_of(direction), len(values)), np.subtract(values, others)
    compared = compare(values, others)
    found = replace(found, difference=compared.difference, interval=compared.interval)
    if len(values) < 2:
        return replace(found, reason="one seed")
    sd = float(differences.std(ddof=1))
    if compared.interval is None:
        return replace(found, sd=sd, reason="the difference is the same for all seeds")
    p, against = _p_values(float(differences.mean()), sd, len(values), found.region)
    return replace(found, sd=sd, p=p, p_against=against)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values by Holm's step-down method: their family-wise error rate is at most the level they reach."""
    order, count = np.argsort(p_values, kind="stable"), len(p_values)
    corrected = np.empty(count)
    corrected[order] = np.maximum.accumulate(np.asarray(p_values, float)[order] * (count - np.arange(count)))
    return [min(1.0, float(p)) for p in corrected]


def decide(evidence: Sequence[Evidence]) -> list[Verdict]:
    """Returns the verdict on each hypothesis; `evidence` is that of all hypotheses of the table."""
    p, against = holm([one.p for one in evidence]), holm([one.p_against for one in evidence])
    levels = [ERROR_RATE / max(1, sum(value > ERROR_RATE for value in side)) for side in (p, against)]
    found = []
    for one, p_for, p_against in zip(evidence, p, against, strict=True):
        word = SUPPORTED if p_for <= ERROR_RATE else CONTRADICTED if p_against <= ERROR_RATE else UNDECIDED
        plan = (None, None) if word != UNDECIDED else _plan(one, *levels)
        found.append(Verdict(one, word, p_for, p_against, *plan))
    return found


def _plan(one: Evidence, level: float, level_against: float) -> tuple[Region | None, float | None]:
    """Returns where the observed difference lies, and the level of the test that would show that."""
    if one.reason or one.difference is None:
        return None, None
    low, high = one.region
    if low < one.difference < high:
        return one.region, level
    return (-math.inf, low) if one.difference <= low else (high, math.inf), level_against / _finite(one.region)


def seeds_needed(difference: float, sd: float, region: Region, level: float) -> int | None:
    """Returns the smallest number of seeds whose tests at `level` show `region` with a probability of `POWER`.

    Args:
        difference, sd: true mean and standard deviation of the differences between two rows, in points.
    """
    if power(MOST_SEEDS, difference, sd, region, level) < POWER:
        return None
    low, high = 1, MOST_SEEDS  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, difference, sd, region, level) >= POWER else (middle, high)
    return high


def power(seeds: int, difference: float, sd: float, region: Region, level: float) -> float:
    """Returns the probability that tests at `level` show that the difference lies in `region`.

    Given the estimated deviation, the estimated mean must lie a multiple of it inside each bound, which is a normal
    probability; the mean over the distribution of the estimated deviation is taken over its quantiles.
    """
    from scipy.stats import chi2, norm, t

    quantiles = (np.arange(1000) + 0.5) / 1000
    distance = t.isf(level, seeds - 1) * np.sqrt(chi2.ppf(quantiles, seeds - 1) / (seeds - 1))
    low, high = ((bound - difference) / (sd / math.sqrt(seeds)) for bound in region)
    return float(np.maximum(0, norm.cdf(high - distance) - norm.cdf(low + distance)).mean())


def _p_values(mean: float, sd: float, seeds: int, region: Region) -> tuple[float, float]:
    """Returns the p-values of the tests that the true mean lies in the region, and that it lies outside."""
    from scipy.stats import t

    error = sd / math.sqrt(seeds)
    above_low = float(t.sf((mean - region[0]) / error, seeds - 1))
    below_high = float(t.cdf((mean - region[1]) / error, seeds - 1))
    # Being below the lower bound and being above the upper one are two tests, so the smaller p-value counts twice.
    return max(above_low, below_high), min(1.0, _finite(region) * min(1 - above_low, 1 - below_high))


def _finite(region: Region) -> int:
    return sum(map(math.isfinite, region))
