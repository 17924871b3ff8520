"""Domain alignment, L_da: a discrepancy between the modalities' outputs (paper section 3.4; method section 3)."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from xkd import registry
from xkd.logged import LoggedColumn, each
from xkd.modalities import MODALITIES
from xkd.objectives.term import Outputs, RunSizes, Term, Values

GAMMAS = (1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3)
SMALLEST_SQUARED_DISTANCE = 1e-30
SMALLEST_EXPONENT = -87.0  # below, float32 loses digits, which takes a CPU ten times as long and changes no sum


@registry.discrepancies.register("mmd")
def mmd(x_RK: Tensor, y_SK: Tensor) -> Tensor:
    """Returns the biased squared MMD with a sum of Gaussian kernels exp(-gamma d^2); a scalar.

    mean K(x, x) + mean K(y, y) - 2 mean K(x, y), over all entries, the diagonal included.
    """
    # One distance matrix for all pairs is cheaper than three.
    rows = torch.cat((x_RK, y_SK))
    squared = squared_distances(rows)
    kernel = reduce(Tensor.add, (torch.exp((-gamma * squared).clamp(min=SMALLEST_EXPONENT)) for gamma in GAMMAS))
    n = len(x_RK)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def squared_distances(rows_RK: Tensor) -> Tensor:
    """Returns the squared Euclidean distances between rows, clamped from below: (R, R)."""
    products = rows_RK @ rows_RK.T
    # Norms summed in another order than the products would leave a distance of 4e-3 from a row of 8192 values to itself
    # in float32, and of exp(-1e3 d^2) little.
    norms = products.diagonal()
    return (norms[:, None] + norms[None] - 2 * products).clamp(min=SMALLEST_SQUARED_DISTANCE)


@registry.discrepancies.register("coral")
def coral(x_RK: Tensor, y_SK: Tensor) -> Tensor:
    """Returns the squared Frobenius distance of both covariance matrices over 4 K^2 (Sun & Saenko, 2016); a scalar."""
    difference = covariance(x_RK) - covariance(y_SK)
    return difference.square().sum() / (4 * x_RK.shape[1] ** 2)


def covariance(rows_RK: Tensor) -> Tensor:
    """Returns the unbiased covariance of columns: (K, K).

    Unlike torch.cov it looks at no value, so that `xkd plan` can count it.
    """
    centred_KR = rows_RK.T - rows_RK.T.sum(1, keepdim=True) / len(rows_RK)
    return centred_KR @ centred_KR.T / (len(rows_RK) - 1)


@registry.terms.register("alignment")
class Alignment(Term):
    """L_da: the mean of the students' discrepancy and the teachers', which has no gradient."""

    columns = each(("students", "teachers"), LoggedColumn("alignment_{}", "alignment, {}"))
    needs_teachers = True
    compares_clips = True

    def __init__(self, settings: Any, sizes: RunSizes) -> None:
        super().__init__(settings, sizes)
        self.discrepancy = registry.discrepancies[settings.discrepancy]

    def forward(self, outputs: Outputs) -> Values:
        both = {"students": outputs.student_RK, "teachers": outputs.teacher_BK}
        return Values({f"alignment_{who}": self.discrepancy(*(of[m] for m in MODALITIES)) for who, of in both.items()})
