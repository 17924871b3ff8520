"""Domain alignment, L_da: maximum mean discrepancy, or CORAL (paper section 3.4; method section 3)."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

GAMMAS = (1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3)
SMALLEST_SQUARED_DISTANCE = 1e-30


def mmd(x_RK: Tensor, y_SK: Tensor) -> Tensor:
    """Biased squared MMD with a sum of Gaussian kernels exp(-gamma d^2); a scalar.

    mean K(x, x) + mean K(y, y) - 2 mean K(x, y), over all entries, the diagonal included.
    """
    # One distance matrix for all pairs is cheaper than three.
    rows = torch.cat((x_RK, y_SK))
    squared = squared_distances(rows)
    kernel = reduce(Tensor.add, (torch.exp(-gamma * squared) for gamma in GAMMAS))
    n = len(x_RK)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def squared_distances(rows_RK: Tensor) -> Tensor:
    """(R, R) squared Euclidean distances between rows, clamped from below."""
    products = rows_RK @ rows_RK.T
    # Norms summed in another order than the products would leave a distance of 4e-3 from a row of 8192 values to itself in
    # float32, and of exp(-1e3 d^2) little.
    norms = products.diagonal()
    return (norms[:, None] + norms[None] - 2 * products).clamp(min=SMALLEST_SQUARED_DISTANCE)


def coral(x_RK: Tensor, y_SK: Tensor) -> Tensor:
    """Squared Frobenius distance of the two covariance matrices over 4 K^2 (Sun & Saenko, 2016); a scalar."""
    difference = torch.cov(x_RK.T) - torch.cov(y_SK.T)
    return difference.square().sum() / (4 * x_RK.shape[1] ** 2)


DISCREPANCIES = {"mmd": mmd, "coral": coral}
