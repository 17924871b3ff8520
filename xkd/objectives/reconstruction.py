"""Masked reconstruction, L_ae (paper section 3.1; method section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-6


def kept_patches(rank_BN: Tensor, mask_ratio: float) -> Tensor:
    """Indices (B, K) of the patches that stay visible: the lowest ranks, K = round(N (1 - mask_ratio))."""
    keep = round(rank_BN.shape[1] * (1 - mask_ratio))
    return rank_BN.argsort(1)[:, :keep]


def masked(keep_BK: Tensor, patches: int) -> Tensor:
    """(B, N) booleans, True where a patch is hidden from the encoder."""
    hidden = torch.ones(len(keep_BK), patches, dtype=torch.bool, device=keep_BK.device)
    return hidden.scatter(1, keep_BK, False)


def normalised_targets(patches_BNP: Tensor) -> Tensor:
    """Each patch to zero mean and unit (unbiased) variance."""
    mean = patches_BNP.mean(-1, keepdim=True)
    variance = patches_BNP.var(-1, keepdim=True)
    return (patches_BNP - mean) / (variance + VARIANCE_FLOOR).sqrt()


def reconstruction_loss(predicted_BNP: Tensor, patches_BNP: Tensor, hidden_BN: Tensor) -> Tensor:
    """Mean squared error on the hidden patches against per-patch normalised targets; a scalar."""
    error_BN = (predicted_BNP - normalised_targets(patches_BNP)).square().mean(-1)
    return (error_BN * hidden_BN).sum() / hidden_BN.sum()
