"""Formulas of verdicts against scipy's tests, enumeration and simulation."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import nct, t, ttest_1samp, ttest_rel

from xkd.report.verdicts import Evidence, decide, holm, judge, power, region_of, seeds_needed

ROW, OTHER = [31.0, 33.5, 33.0, 36.0], [30.0, 30.0, 32.5, 31.0]
ABOVE, BELOW = region_of("above"), region_of("below")


def test_above_and_below_are_the_one_sided_paired_tests():
    greater = ttest_rel(ROW, OTHER, alternative="greater").pvalue
    above, below = judge(ROW, OTHER, "above"), judge(ROW, OTHER, "below")
    assert (above.p, above.p_against) == (pytest.approx(greater), pytest.approx(1 - greater))
    assert (below.p, below.p_against) == (above.p_against, above.p)
    assert judge(OTHER, ROW, "below").p == pytest.approx(greater)


@pytest.mark.parametrize("shift", [0.0, -2.5, -6.0])
def test_equal_within_is_two_one_sided_tests(shift):
    differences = np.subtract(ROW, OTHER) + shift
    found = judge(np.add(ROW, shift), OTHER, "equal within 1.5")
    inside = [ttest_1samp(differences, -1.5, alternative="greater"), ttest_1samp(differences, 1.5, alternative="less")]
    outside = [ttest_1samp(differences, -1.5, alternative="less"), ttest_1samp(differences, 1.5, alternative="greater")]
    assert found.p == pytest.approx(max(test.pvalue for test in inside))
    assert found.p_against == pytest.approx(min(1, 2 * min(test.pvalue for test in outside)))


def test_effect_is_the_mean_difference_in_deviations():
    found = judge(ROW, OTHER, "above")
    assert found.difference == pytest.approx(2.5)
    assert found.effect == pytest.approx(2.5 / math.sqrt((1.5**2 + 1 + 2**2 + 2.5**2) / 3))


def test_holm_is_the_closed_test_of_bonferroni():
    """A hypothesis is rejected if every set that holds it is; corrected p-values by enumeration of all sets."""
    for p in np.random.default_rng(0).uniform(0, 0.3, size=(20, 5)):
        sets = [those for size in range(1, 6) for those in combinations(range(5), size)]
        expected = [max(min(1, len(s) * min(p[j] for j in s)) for s in sets if one in s) for one in range(5)]
        assert holm(p) == pytest.approx(expected)


@pytest.mark.parametrize("seeds", [2, 3, 8, 40])
def test_power_of_a_one_sided_test_is_a_noncentral_t(seeds):
    expected = nct.sf(t.isf(0.004, seeds - 1), seeds - 1, 1.2 / 2.0 * math.sqrt(seeds))
    assert power(seeds, 1.2, 2.0, ABOVE, 0.004) == pytest.approx(expected, abs=1e-3)
    assert power(seeds, -1.2, 2.0, BELOW, 0.004) == pytest.approx(expected, abs=1e-3)


def test_power_of_equal_within_is_the_share_of_simulated_tables():
    differences = np.random.default_rng(1).normal(0.4, 2.0, size=(20_000, 24))
    inside = ttest_1samp(differences, -2, axis=1, alternative="greater").pvalue <= 0.02
    inside &= ttest_1samp(differences, 2, axis=1, alternative="less").pvalue <= 0.02
    assert power(24, 0.4, 2.0, (-2, 2), 0.02) == pytest.approx(inside.mean(), abs=3 * 0.5 / math.sqrt(20_000))


def test_seeds_needed_are_the_fewest_that_reach_the_power():
    def exact(seeds):
        return nct.sf(t.isf(0.01, seeds - 1), seeds - 1, 0.8 * math.sqrt(seeds))

    needed = seeds_needed(1.6, 2.0, ABOVE, 0.01)
    assert exact(needed) >= 0.8 > exact(needed - 1)
    assert seeds_needed(0.001, 2.0, ABOVE, 0.01) is None


def evidence(p, p_against=1.0, **more):
    return Evidence(ABOVE, 5, difference=1.0, sd=2.0, p=p, p_against=p_against, **more)


def test_all_hypotheses_pay_for_each_other():
    """0.02 alone is below 0.05; beside two others it is not. The tests for and against are corrected apart."""
    assert [one.word for one in decide([evidence(0.02)])] == ["supported"]
    assert [one.word for one in decide([evidence(0.02), evidence(0.5), evidence(0.6)])] == ["undecided"] * 3
    three = decide([evidence(0.02), evidence(0.5), evidence(0.99, 0.01)])
    assert [one.word for one in three] == ["undecided", "undecided", "contradicted"]


def test_a_hypothesis_that_cannot_be_tested_counts_too():
    alone, with_another = decide([evidence(0.03)]), decide([evidence(0.03), Evidence(ABOVE, reason="no figures of ae")])
    assert (alone[0].word, with_another[0].word) == ("supported", "undecided")
    assert (with_another[1].word, with_another[1].seeds_needed) == ("undecided", None)


def test_the_level_is_shared_by_what_is_not_supported_yet():
    found = decide([evidence(0.001), evidence(0.2), evidence(0.3)])
    assert [one.level for one in found] == [None, 0.025, 0.025]
    assert found[1].seeds_needed == seeds_needed(1.0, 2.0, ABOVE, 0.025)


def test_seeds_are_those_that_contradict_where_the_difference_lies_outside():
    inside, outside = (
        judge([30 + gap, 30 - gap, 30 + shift], [30.0] * 3, "equal within 1.0") for gap, shift in ((1, 0.5), (1, 9))
    )
    (kept,), (against,) = decide([inside]), decide([outside])
    assert kept.seeds_needed == seeds_needed(inside.difference, inside.sd, (-1, 1), 0.05)
    assert against.level == 0.025
    assert against.seeds_needed == seeds_needed(outside.difference, outside.sd, (1, math.inf), 0.025)


@pytest.mark.parametrize(
    ("values", "others", "reason"),
    [([31.0], [30.0], "one seed"), ([31.0, 32.0], [30.0, 31.0], "the difference is the same for all seeds")],
)
def test_without_a_spread_nothing_is_decided(values, others, reason):
    found = judge(values, others, "above")
    assert (found.reason, found.p, found.p_against, found.effect, found.difference) == (reason, 1, 1, None, 1)
    assert decide([found])[0].word == "undecided"
