"""A few held-out clips as the trained networks see them, for the report's pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from xkd.files import replacing
from xkd.models.patches import patchify, unpatchify
from xkd.objectives.reconstruction import VARIANCE_FLOOR, kept_patches, masked
from xkd.training.loop import Trainer

CLIPS = 8
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@torch.no_grad()
def save_samples(trainer: Trainer, views: dict[str, Tensor], out: Path) -> None:
    """Writes samples.npz: true, masked and predicted views, and refinement weights where the run refines.

    Args:
        trainer: after training.
        views: per modality the evaluation views of `CLIPS` held-out clips.
        out: folder of the run.
    """
    networks = trainer.networks.eval()
    views = {m: view.to(trainer.device) for m, view in views.items() if m in networks.students}
    arrays = {}
    ranks = trainer.ranks(len(next(iter(views.values()))), step=0)
    for modality in networks.decoders:
        arrays |= _reconstruction(trainer, modality, views[modality], ranks[modality])
    if networks.teachers and trainer.recipe.objective.refinement != "none":
        _, weights = trainer.objective.teacher_tokens_and_weights(
            {m: 2 * [networks.teachers[m].cut(view)] for m, view in views.items()}
        )
        for modality, weights_BN in weights.items():
            relative_BN = weights_BN / weights_BN.mean(1, keepdim=True)
            arrays[f"weights_{modality}"] = relative_BN.unflatten(1, networks.teachers[modality].grid)
    with replacing(out / "samples.npz") as path, open(path, "wb") as handle:
        np.savez_compressed(handle, **{name: a.float().cpu().numpy() for name, a in arrays.items()})


def _reconstruction(trainer: Trainer, modality: str, view: Tensor, rank_BN: Tensor) -> dict[str, Tensor]:
    encoder, decoder = trainer.networks.students[modality], trainer.networks.decoders[modality]
    keep_BK = kept_patches(rank_BN, getattr(trainer.recipe.objective, f"mask_{modality}"))
    hidden_BN1 = masked(keep_BK, rank_BN.shape[1]).unsqueeze(-1)
    patches_BNP = patchify(view, encoder.patch)
    # The network predicts normalised patches; the true mean and deviation of each make them pictures again.
    deviation = (patches_BNP.var(-1, keepdim=True) + VARIANCE_FLOOR).sqrt()
    predicted_BNP = decoder(encoder(view, keep_BK), keep_BK) * deviation + patches_BNP.mean(-1, keepdim=True)
    # Zero is mid grey in a normalised picture; in a log-mel, silence shows better.
    blank = patches_BNP.min() if modality == "audio" else torch.zeros((), device=view.device)
    pictures = {
        "true": patches_BNP,
        "masked": torch.where(hidden_BN1, blank, patches_BNP),
        "predicted": torch.where(hidden_BN1, predicted_BNP, patches_BNP),
    }
    return {
        f"{modality}_{name}": _as_picture(unpatchify(p, encoder.patch, encoder.grid), modality)
        for name, p in pictures.items()
    }


def _as_picture(view: Tensor, modality: str) -> Tensor:
    """(B, T, H, W, 3) in 0..1 for video, (B, M, F) for audio."""
    if modality == "audio":
        return view[:, 0]
    mean, std = (torch.tensor(v, device=view.device).view(1, 3, 1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (view * std + mean).clamp(0, 1).permute(0, 2, 3, 4, 1)
