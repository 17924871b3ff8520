"""Mean, spread and paired comparison over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import ttest_rel

CONFIDENCE = 0.95  # of intervals


@dataclass(frozen=True)
class Comparison:
    """One column of one ablation over seeds. None: not defined (see `compare`)."""

    mean: float
    sd: float | None
    difference: float | None
    p: float | None
    interval: tuple[float, float] | None = None


def compare(values: Sequence[float], reference: Sequence[float] | None) -> Comparison:
    """Summarises `values` and compares them with `reference`, seed by seed.

    Args:
        values: one value per seed.
        reference: one value per seed in the same order, or None where the reference lacks the column.

    Returns:
        mean; sd with n - 1 (None with one seed); mean of the differences; p and confidence interval of the two-sided
        paired t-test. Both are None with fewer than two seeds, and where the differences do not vary: there is then no
        spread to test against.
    """
    found = np.asarray(values, dtype=float)
    sd = float(found.std(ddof=1)) if len(found) > 1 else None
    if reference is None:
        return Comparison(float(found.mean()), sd, None, None)
    differences = found - np.asarray(reference, dtype=float)
    if len(found) < 2 or np.allclose(differences, differences[0], rtol=0, atol=1e-9):
        return Comparison(float(found.mean()), sd, float(differences.mean()), None)

    test = ttest_rel(found, reference)
    low, high = test.confidence_interval(CONFIDENCE)
    return Comparison(float(found.mean()), sd, float(differences.mean()), float(test.pvalue), (float(low), float(high)))


def rounded(points: float | None) -> float | None:
    """Rounds points to four decimals: more than the clips can tell, and equal on all machines."""
    return None if points is None else round(points, 4)


def significant(value: float | None) -> float | None:
    """Rounds p-values and the like to four digits, for the same reason."""
    return None if value is None else float(f"{value:.4g}")
