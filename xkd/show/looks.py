"""Runs a file's clips through the networks: what is hidden, what is filled in, and what is looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xkd.encoders.images import reconstructed_images, relative_weights
from xkd.errors import UserError
from xkd.modalities import MODALITIES, OTHER
from xkd.objectives.reconstruction import kept_patches
from xkd.objectives.refinement import patch_weights
from xkd.show.models import Models
from xkd.show.moment import Moment


@dataclass(frozen=True)
class Look:
    """One modality of a file as the networks see it.

    Attributes:
        true: frames (T, H, W, 3) in 0..1, or log-mel (M, F), as they enter the network.
        masked, predicted: the same with hidden patches, and with those filled in; None without a decoder.
        hidden: share of the patches that are hidden.
        weights: one per patch, in the encoder's grid, 1 on average.
        weighed_by: name of what the weights are.
        seconds: length of the view.
    """

    true: np.ndarray
    masked: np.ndarray | None
    predicted: np.ndarray | None
    hidden: float | None
    weights: np.ndarray
    weighed_by: str
    seconds: float


@torch.inference_mode()
def look(models: Models, moment: Moment, seed: int) -> tuple[dict[str, Look], list[str]]:
    """Returns what there is to see of each modality that the file has, and one line on each thing that is missing.

    Args:
        seed: decides which patches are hidden.

    Raises:
        UserError: weights or images that are not finite.
    """
    views = {m: _view(models, m, clip) for m, clip in moment.clips.items()}
    weights, weighed_by, notes = _weights(models, views)
    for modality, weights_N in weights.items():
        _check_finite(weights_N, models, modality)
    looks, bare = {}, []
    for modality, view in views.items():
        _, encoder = models.of(modality, ("student", "teacher"))
        trained_with = encoder.config.decoder
        images: dict[str, Tensor] = {}
        hidden = None
        if modality in models.decoders and trained_with is not None:
            hidden = trained_with.mask
            rank_BN = torch.rand(1, weights[modality].numel(), generator=torch.Generator().manual_seed(seed))
            keep_BK = kept_patches(rank_BN, hidden)
            images = reconstructed_images(modality, encoder.encoder, models.decoders[modality], view, keep_BK)
            _check_finite(images["predicted"], models, modality)
        else:
            bare.append(modality)
        looks[modality] = Look(
            true=MODALITIES[modality].images(view)[0].numpy(),
            masked=_array(images.get("masked")),
            predicted=_array(images.get("predicted")),
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
    view = encoder.view(torch.from_numpy(clip)[None], round(encoder.config.input.rate))
    return view.narrow(2 + MODALITIES[modality].time_axis, 0, encoder.config.input.frames)


def _weights(models: Models, views: dict[str, Tensor]) -> tuple[dict[str, Tensor], str, list[str]]:
    """Computes weights per modality; also returns what they are, and why they are no refinement where they are none."""
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
    missing = [m for m in MODALITIES if ("teacher", m) not in models.encoders]
    if missing:
        return (
            f"no refinement: it takes teachers of both modalities, and --encoder names none of {' and '.join(missing)}"
        )
    if len(views) < 2:
        return "no refinement: it takes frames and audio"
    return None


def _check_finite(values: Tensor, models: Models, modality: str) -> None:
    if not values.isfinite().all():
        raise UserError(
            f"{models.name}: {modality}: what the networks make of this clip is not finite: such values in the clip, "
            "or weights that overflow"
        )


def _array(images: Tensor | None) -> np.ndarray | None:
    return None if images is None else images[0].numpy()
