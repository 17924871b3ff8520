import numpy as np
import pytest
import torch

from xkd.models.encoder import take
from xkd.objectives.reconstruction import (
    kept_patches,
    masked,
    normalised_targets,
    reconstruction_loss,
    split_patches,
)


@pytest.mark.parametrize(
    ("patches", "ratio", "kept"), [(392, 0.85, 59), (560, 0.80, 112), (32, 0.85, 5), (60, 0.80, 12)]
)
def test_the_share_that_stays_visible(patches, ratio, kept):
    rank = torch.rand(3, patches)
    keep = kept_patches(rank, ratio)
    assert torch.equal(keep, split_patches(rank, ratio)[0])
    assert keep.shape == (3, kept)
    hidden = masked(keep, patches)
    assert (hidden.sum(1) == patches - kept).all()
    assert torch.equal(hidden.nonzero()[:, 1].view(3, -1), split_patches(rank, ratio)[1])
    # The lowest ranks stay: every visible rank lies below every hidden one.
    assert (rank.masked_fill(hidden, 0).amax(1) < rank.masked_fill(~hidden, 1).amin(1)).all()


def test_loss_is_the_mean_squared_error_of_hidden_patches_only():
    rng = np.random.default_rng(0)
    patches, predicted = rng.normal(3, 2, (2, 5, 12)), rng.normal(size=(2, 5, 12))
    hidden = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1]], bool)
    errors = []
    for b, n in zip(*np.nonzero(hidden), strict=True):
        patch = patches[b, n]
        target = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
        errors.append(np.mean((predicted[b, n] - target) ** 2))
    rows = torch.from_numpy(np.nonzero(hidden)[1].reshape(2, 3))
    chosen = [take(torch.from_numpy(x), rows) for x in (predicted, patches)]
    assert reconstruction_loss(*chosen).item() == pytest.approx(np.mean(errors), rel=1e-12)


def test_a_flat_patch_gives_a_finite_target():
    target = normalised_targets(torch.full((1, 1, 8), 0.7))
    assert torch.isfinite(target).all()
    assert target.abs().max() < 1e-2
