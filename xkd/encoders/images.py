"""Images of what networks make of a view: what the decoder fills in, and how much each patch weighs."""

from __future__ import annotations

import torch
from torch import Tensor

from xkd.modalities import MODALITIES
from xkd.models.decoder import PatchDecoder
from xkd.models.encoder import Encoder
from xkd.models.patches import patchify, unpatchify
from xkd.objectives.reconstruction import VARIANCE_FLOOR, masked


@torch.no_grad()
def reconstructed_images(
    modality: str, encoder: Encoder, decoder: PatchDecoder, view: Tensor, keep_BK: Tensor
) -> dict[str, Tensor]:
    """Makes images of a view: as it is, without its hidden patches, and with those that the decoder predicts.

    Args:
        view: normalised, (B, 3, T, H, W) or (B, 1, M, F).
        keep_BK: patches that the encoder sees (`xkd.objectives.reconstruction.kept_patches`).

    Returns:
        "true", "masked" and "predicted", see `Modality.images`.
    """
    own = MODALITIES[modality]
    patches_BNP = patchify(view, encoder.patch)
    hidden_BN1 = masked(keep_BK, patches_BNP.shape[1]).unsqueeze(-1)
    # The network predicts normalised patches; the true mean and deviation of each undo that.
    deviation = (patches_BNP.var(-1, keepdim=True) + VARIANCE_FLOOR).sqrt()
    hidden_BM = hidden_BN1.squeeze(-1).nonzero()[:, 1].view(len(keep_BK), -1)
    predicted_BMP = decoder(encoder(view, keep_BK), keep_BK, hidden_BM)
    predicted_BNP = torch.zeros_like(patches_BNP).masked_scatter(hidden_BN1, predicted_BMP)
    predicted_BNP = predicted_BNP * deviation + patches_BNP.mean(-1, keepdim=True)
    kinds = {
        "true": patches_BNP,
        "masked": torch.where(hidden_BN1, own.blank(patches_BNP), patches_BNP),
        "predicted": torch.where(hidden_BN1, predicted_BNP, patches_BNP),
    }
    return {name: own.images(unpatchify(p, encoder.patch, encoder.grid)) for name, p in kinds.items()}


def relative_weights(weights_BN: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Divides weights of patches by their mean, (B, *grid): 1 is a patch like any other."""
    relative: Tensor = (weights_BN / weights_BN.mean(1, keepdim=True)).unflatten(1, grid)
    return relative
