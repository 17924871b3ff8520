"""What networks make of a view, as pictures: what the decoder fills in, and how much each patch weighs."""

from __future__ import annotations

import torch
from torch import Tensor

from xkd.modalities.video import IMAGENET_MEAN, IMAGENET_STD
from xkd.models.decoder import Decoder
from xkd.models.patches import patchify, unpatchify
from xkd.models.vit import Encoder
from xkd.objectives.reconstruction import VARIANCE_FLOOR, masked


@torch.no_grad()
def reconstruction(encoder: Encoder, decoder: Decoder, view: Tensor, keep_BK: Tensor) -> dict[str, Tensor]:
    """The true view, the view without its hidden patches, and with those that the decoder predicts, as pictures.

    Args:
        view: normalised, (B, 3, T, H, W) or (B, 1, M, F).
        keep_BK: patches that the encoder sees (`xkd.objectives.reconstruction.kept_patches`).

    Returns:
        "true", "masked" and "predicted", see `as_picture`.
    """
    patches_BNP = patchify(view, encoder.patch)
    hidden_BN1 = masked(keep_BK, patches_BNP.shape[1]).unsqueeze(-1)
    # The network predicts normalised patches; the true mean and deviation of each make them pictures again.
    deviation = (patches_BNP.var(-1, keepdim=True) + VARIANCE_FLOOR).sqrt()
    predicted_BNP = decoder(encoder(view, keep_BK), keep_BK) * deviation + patches_BNP.mean(-1, keepdim=True)
    # Zero is mid grey in a normalised picture; in a log-mel, silence shows better.
    blank = patches_BNP.min() if view.ndim == 4 else torch.zeros((), device=view.device)
    kinds = {
        "true": patches_BNP,
        "masked": torch.where(hidden_BN1, blank, patches_BNP),
        "predicted": torch.where(hidden_BN1, predicted_BNP, patches_BNP),
    }
    return {name: as_picture(unpatchify(p, encoder.patch, encoder.grid)) for name, p in kinds.items()}


def as_picture(view: Tensor) -> Tensor:
    """A normalised view as (B, T, H, W, 3) in 0..1 for video, (B, M, F) for audio."""
    if view.ndim == 4:
        return view[:, 0]
    mean, std = (torch.tensor(v, device=view.device).view(1, 3, 1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (view * std + mean).clamp(0, 1).permute(0, 2, 3, 4, 1)


def relative_weights(weights_BN: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Weights of patches (B, *grid) in units of their mean: 1 is a patch like any other."""
    relative: Tensor = (weights_BN / weights_BN.mean(1, keepdim=True)).unflatten(1, grid)
    return relative
