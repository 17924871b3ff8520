import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xkd.objectives.alignment import coral, mmd


def test_mmd_equals_the_sum_over_all_pairs_of_all_kernels():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(4, 3)), rng.normal(0.5, 2, size=(6, 3))

    def kernel_mean(a, b):
        return np.mean([[sum(np.exp(-(10.0**g) * ((p - q) ** 2).sum()) for g in range(-3, 4)) for q in b] for p in a])

    expected = kernel_mean(x, x) + kernel_mean(y, y) - 2 * kernel_mean(x, y)
    assert mmd(torch.from_numpy(x), torch.from_numpy(y)).item() == pytest.approx(expected, rel=1e-10)


def test_mmd_is_0_for_the_same_rows_and_grows_with_their_distance():
    x = torch.randn(16, 8, dtype=torch.float64)
    same, near, far = (mmd(x, x + shift).item() for shift in (0, 0.5, 3))
    assert same == pytest.approx(0, abs=1e-12)
    assert same < near < far


def test_mmd_gradient_is_finite_where_rows_coincide():
    x = torch.ones(3, 4, requires_grad=True)
    mmd(x, torch.ones(3, 4)).backward()
    assert torch.isfinite(x.grad).all()


def test_coral_compares_covariances():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(20, 4)), rng.normal(size=(30, 4)) @ rng.normal(size=(4, 4))
    expected = ((np.cov(x.T) - np.cov(y.T)) ** 2).sum() / (4 * 16)
    assert coral(torch.from_numpy(x), torch.from_numpy(y)).item() == pytest.approx(expected, rel=1e-10)
    assert coral(torch.from_numpy(x), torch.from_numpy(x + 7)).item() == pytest.approx(0, abs=1e-12)


def test_float32_is_exact_enough_for_the_heads_of_the_paper():
    """A row must be at distance 0 from itself: at gamma 1e3 the rounding of 8192 squares would count."""
    x, y = (F.layer_norm(torch.randn(8, 8192, generator=torch.Generator().manual_seed(n)), (8192,)) for n in (0, 1))
    assert mmd(x, y).item() == pytest.approx(mmd(x.double(), y.double()).item(), rel=1e-4)
