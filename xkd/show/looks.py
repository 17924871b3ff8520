"""A file's cuts through the networks: what is hidden, what is filled in, and what is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xkd.encoders.pictures import as_picture, reconstruction, relative_weights
from xkd.errors import UserError
from xkd.modalities import OTHER
from xkd.objectives.reconstruction import kept_patches
from xkd.objectives.refinement import patch_weights
from xkd.show.media import Cuttings
from xkd.show.models import Models


@dataclass(frozen=True)
class Look:
    """One modality of a file as the networks see it.

    Attributes:
        true: pictures (T, H, W, 3) in 0..1, or log-mel (M, F), as they enter the network.
        masked, predicted: the same with hidden patches, and with those filled in; None without a decoder.
        hidden: share of the patches that are hidden.
        weights: one per patch, in the encoder's grid, 1 on average.
        weighed_by: what the weights are, for people.
        seconds: that the view lasts.
    """

    true: np.ndarray
    masked: np.ndarray | None
    predicted: np.ndarray | None
    hidden: float | None
    weights: np.ndarray
    weighed_by: str
    seconds: float


@torch.inference_mode()
def look(models: Models, cuttings: Cuttings, seed: int) -> tuple[dict[str, Look], list[str]]:
    """What there is to see of each modality that the file has, and one line on each thing that is missing.

    Args:
        seed: decides which patches are hidden.

    Raises:
        UserError: weights or pictures that are not finite.
    """
    views = {m: _view(models, m, clip) for m, clip in cuttings.clips.items()}
    weights, weighed_by, notes = _weights(models, views)
    for modality, weights_N in weights.items():
        _check_finite(weights_N, models, modality)
    looks, bare = {}, []
    for modality, view in views.items():
        _, encoder = models.of(modality, ("student", "teacher"))
        trained_with = encoder.config.decoder
        pictures: dict[str, Tensor] = {}
        hidden = None
        if modality in models.decoders and trained_with is not None:
            hidden = trained_with.mask
            rank_BN = torch.rand(1, weights[modality].numel(), generator=torch.Generator().manual_seed(seed))
            keep_BK = kept_patches(rank_BN, hidden)
            pictures = reconstruction(encoder.encoder, models.decoders[modality], view, keep_BK)
            _check_finite(pictures["predicted"], models, modality)
        else:
            bare.append(modality)
        looks[modality] = Look(
            true=as_picture(view)[0].numpy(),
            masked=_array(pictures.get("masked")),
            predicted=_array(pictures.get("predicted")),
            hidden=hidden,
            weights=weights[modality].numpy(),
            weighed_by=weighed_by,
            seconds=encoder.config.input.seconds,
        )
    if bare:
        notes.append(f"no reconstruction of {' and '.join(bare)}: no decoder is stored with what --encoder names")
    return looks, notes


def _view(models: Models, modality: str, clip: np.ndarray) -> Tensor:
    _, encoder = models.of(modality, ("student", "teacher"))
    batch = torch.from_numpy(clip)[None]
    if modality == "video":
        return encoder.video_view(batch)
    return encoder.audio_view(batch, encoder.config.audio.sample_rate)[..., : encoder.config.audio.frames]


def _weights(models: Models, views: dict[str, Tensor]) -> tuple[dict[str, Tensor], str, list[str]]:
    """Weights per modality, what they are, and why they are no refinement where they are none."""
    attention, owners = {}, {}
    for modality, view in views.items():
        owners[modality], encoder = models.of(modality, ("teacher", "student"))
        attended = encoder.encoder.encode(view, with_cls_attention=True).cls_attention
        if attended is not None:
            attention[modality] = attended
    grids = {m: models.of(m, ("teacher", "student"))[1].encoder.grid for m in views}
    why = _why_unrefined(models, views, owners)
    if why is None:
        found = {m: patch_weights(a, attention[OTHER[m]], models.refinement) for m, a in attention.items()}
        weighed_by = "refinement"
    else:
        found = {m: a.mean(1) for m, a in attention.items()}
        weighed_by = "attention"
    weights = {m: relative_weights(weights_BN, grids[m])[0] for m, weights_BN in found.items()}
    return weights, weighed_by, [f"{why}; shown is the attention of each encoder alone"] if why else []


def _why_unrefined(models: Models, views: dict[str, Tensor], owners: dict[str, str]) -> str | None:
    if models.refinement == "none":
        return "no refinement: the run was trained without"
    missing = [m for m in ("video", "audio") if ("teacher", m) not in models.encoders]
    if missing:
        return (
            f"no refinement: it takes teachers of both modalities, and --encoder names none of {' and '.join(missing)}"
        )
    if len(views) < 2:
        return "no refinement: it takes pictures and sound"
    return None


def _check_finite(values: Tensor, models: Models, modality: str) -> None:
    if not values.isfinite().all():
        raise UserError(
            f"{models.name}: {modality}: what the networks make of this clip is not finite: such values in the clip, or "
            "weights that overflow"
        )


def _array(picture: Tensor | None) -> np.ndarray | None:
    return None if picture is None else picture[0].numpy()
