"""Cross-modal refinement of the teachers' tokens (paper section 3.2; method section 3).

Shapes: B batch, H heads, N patches of the refined modality, M patches of the other, D width.
"""

from __future__ import annotations

from torch import Tensor

from xkd import registry


def head_relevance(own_BHN: Tensor, other_BHM: Tensor) -> Tensor:
    """Returns the weights (B, H, N) of the mean form, before heads are averaged.

    The paper builds M = own (outer) other and takes mean_M(M) / mean_N(own), which is
    own * mean(other) / mean(own): the N x M matrix is never needed.
    """
    return own_BHN * other_BHM.mean(-1, keepdim=True) / own_BHN.mean(-1, keepdim=True)


@registry.refinements.register("mean")
def mean_refinement(own_BHN: Tensor, other_BHM: Tensor) -> Tensor:
    """Returns the paper's weights, averaged over heads: (B, N)."""
    return head_relevance(own_BHN, other_BHM).mean(1)


@registry.refinements.register("softmax")
def softmax_refinement(own_BHN: Tensor, other_BHM: Tensor) -> Tensor:
    """Returns the softmax over patches of the mean of M, averaged over heads: (B, N)."""
    return (own_BHN * other_BHM.mean(-1, keepdim=True)).softmax(-1).mean(1)


def patch_weights(own_BHN: Tensor, other_BHM: Tensor, kind: str) -> Tensor:
    """Returns the weight of each patch: (B, N).

    Args:
        own_BHN: CLS attention to the patches of the modality being refined.
        other_BHM: CLS attention of the other modality.
        kind: a name of `xkd.registry.refinements`.
    """
    weights_BN: Tensor = registry.refinements[kind](own_BHN, other_BHM)
    return weights_BN


def refine(tokens_BND: Tensor, weights_BN: Tensor) -> Tensor:
    """Returns weighted tokens, scaled so that the mean token keeps its energy (squared norm): (B, N, D)."""
    weighted = weights_BN.unsqueeze(-1) * tokens_BND
    before = tokens_BND.mean(1).square().sum(-1)
    after = weighted.mean(1).square().sum(-1)
    return (before / after).sqrt()[:, None, None] * weighted
