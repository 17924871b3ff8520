import numpy as np
import pytest
import torch

from xkd.objectives.refinement import head_relevance, patch_weights, refine


@pytest.fixture
def attention():
    generator = torch.Generator().manual_seed(0)
    own = torch.rand(2, 3, 7, generator=generator, dtype=torch.float64)
    other = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)
    return own / own.sum(-1, keepdim=True), other / other.sum(-1, keepdim=True)


def test_mean_weights_equal_the_outer_product_of_the_paper(attention):
    own, other = attention
    product = np.einsum("bhn,bhm->bhnm", own.numpy(), other.numpy())
    expected = product.mean(3) / own.numpy().mean(2)[..., None]
    np.testing.assert_allclose(head_relevance(own, other).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(patch_weights(own, other, "mean").numpy(), expected.mean(1), rtol=1e-12)


def test_softmax_weights_are_a_distribution_over_patches(attention):
    own, other = attention
    scores = np.einsum("bhn,bhm->bhnm", own.numpy(), other.numpy()).mean(3)
    expected = (np.exp(scores) / np.exp(scores).sum(2, keepdims=True)).mean(1)
    got = patch_weights(own, other, "softmax").numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    np.testing.assert_allclose(got.sum(1), 1)


def test_refinement_keeps_the_energy_of_the_mean_token_and_the_ratio_of_weights(attention):
    own, other = attention
    tokens = torch.randn(2, 7, 5, dtype=torch.float64)
    weights = patch_weights(own, other, "mean")
    refined = refine(tokens, weights)
    energies = [(t.numpy().mean(1) ** 2).sum(-1) for t in (refined, tokens)]
    np.testing.assert_allclose(*energies, rtol=1e-12)
    ratio = (refined / tokens)[..., 0] / weights
    np.testing.assert_allclose(ratio.numpy(), np.broadcast_to(ratio[:, :1].numpy(), ratio.shape), rtol=1e-9)


def test_equal_attention_changes_nothing():
    tokens, flat = torch.randn(2, 6, 4), torch.full((2, 3, 6), 1 / 6)
    torch.testing.assert_close(refine(tokens, patch_weights(flat, flat, "mean")), tokens)
