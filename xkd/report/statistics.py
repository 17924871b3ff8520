"""Mean, spread and paired comparison over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t
from scipy.stats import ttest_rel

LEVEL = 0.95  # of intervals


@dataclass(frozen=True)
class Comparison:
    """One task of one ablation over seeds. None: not defined (see `compare`)."""

    mean: float
    sd: float | None
    difference: float | None
    p: float | None
    interval: tuple[float, float] | None = None


def compare(values: Sequence[float], reference: Sequence[float] | None) -> Comparison:
    """Summarises `values` and sets them against `reference`, seed by seed.

    Args:
        values: one value per seed.
        reference: one value per seed in the same order, or None where the reference lacks the task.

    Returns:
        mean; sd with n - 1 (None with one seed); mean of the differences; p of the two-sided paired t-test and the
        interval that belongs to it. Both are None with fewer than two seeds, and where the differences do not vary:
        there is then no spread to test against.
    """
    found = np.asarray(values, dtype=float)
    sd = float(found.std(ddof=1)) if len(found) > 1 else None
    if reference is None:
        return Comparison(float(found.mean()), sd, None, None)
    differences = found - np.asarray(reference, dtype=float)
    varies = len(found) > 1 and not np.allclose(differences, differences[0], rtol=0, atol=1e-9)
    p = float(ttest_rel(found, reference).pvalue) if varies else None
    interval = _interval(differences) if varies else None
    return Comparison(float(found.mean()), sd, float(differences.mean()), p, interval)


def _interval(differences: np.ndarray) -> tuple[float, float]:
    """Where the mean difference lies with confidence `LEVEL`, by Student's t."""
    count = len(differences)
    half = student_t.ppf(0.5 + LEVEL / 2, count - 1) * differences.std(ddof=1) / np.sqrt(count)
    return float(differences.mean() - half), float(differences.mean() + half)
