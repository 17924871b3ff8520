"""Masked reconstruction, L_ae (paper section 3.1; method section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xkd import registry
from xkd.logged import LoggedColumn, each
from xkd.modalities import MODALITIES
from xkd.models.encoder import take
from xkd.objectives.term import Outputs, Term, Values

VARIANCE_FLOOR = 1e-6


def split_patches(rank_BN: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor]:
    """Returns the indices of the patches that stay visible and of those that are hidden from the encoder.

    Returns:
        (B, K) of the lowest ranks, K = round(N (1 - mask_ratio)); (B, M) of the others, in ascending order.
    """
    order_BN, keep = rank_BN.argsort(1), round(rank_BN.shape[1] * (1 - mask_ratio))
    return order_BN[:, :keep], order_BN[:, keep:].sort(1).values


def kept_patches(rank_BN: Tensor, mask_ratio: float) -> Tensor:
    """Returns the indices (B, K) of the patches that stay visible, as `split_patches` does."""
    return split_patches(rank_BN, mask_ratio)[0]


def masked(keep_BK: Tensor, patches: int) -> Tensor:
    """Returns (B, N) booleans, True where a patch is hidden from the encoder."""
    hidden = torch.ones(len(keep_BK), patches, dtype=torch.bool, device=keep_BK.device)
    return hidden.scatter(1, keep_BK, False)


def normalised_targets(patches_BNP: Tensor) -> Tensor:
    """Scales each patch to zero mean and unit variance: (x - mean) / sqrt(var + 1e-6), var unbiased.

    Written as a LayerNorm, whose variance is the biased one: one fused pass instead of five.
    """
    values = patches_BNP.shape[-1]
    biased = (values - 1) / values
    scale: float = biased**0.5
    return F.layer_norm(patches_BNP, (values,), eps=VARIANCE_FLOOR * biased).mul_(scale)


def reconstruction_loss(predicted_BMP: Tensor, hidden_BMP: Tensor) -> Tensor:
    """Returns the mean squared error of predictions of the hidden patches against normalised ones; a scalar."""
    return F.mse_loss(predicted_BMP, normalised_targets(hidden_BMP))


@registry.terms.register("reconstruction")
class Reconstruction(Term):
    """L_ae: the mean over modalities of the error on hidden patches."""

    columns = each(MODALITIES, LoggedColumn("reconstruction_{}", "reconstruction, {}"))
    needs_decoders = True

    def forward(self, outputs: Outputs) -> Values:
        hidden_BMP = {m: take(outputs.patches_BNP[m], hidden_BM) for m, hidden_BM in outputs.hidden_BM.items()}
        losses = {m: reconstruction_loss(of, hidden_BMP[m]) for m, of in outputs.predicted_BMP.items()}
        return Values({f"reconstruction_{m}": loss for m, loss in losses.items()})
