"""A few held-out clips as the trained networks see them, for the report's figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from xkd.encoders.images import reconstructed_images, relative_weights
from xkd.files import replacing
from xkd.modalities import MODALITIES
from xkd.objectives.reconstruction import kept_patches
from xkd.runs import PICTURE, SAMPLES
from xkd.training.forward import run_teachers
from xkd.training.pretraining import Pretraining

SAMPLE_CLIPS = 8
SHEET_COLUMN, EDGE = 128, 4  # pixels of samples.png: width of a clip, and the frame around it


@torch.no_grad()
def save_samples(learner: Pretraining, views: dict[str, Tensor], out: Path) -> None:
    """Writes samples.npz: true, masked and predicted views, and refinement weights where the run refines.

    See `write_samples`.

    Args:
        learner: after training.
        views: per modality the evaluation views of `SAMPLE_CLIPS` held-out clips.
        out: folder of the run.
    """
    networks = learner.networks.eval()
    views = {m: view.to(learner.device) for m, view in views.items() if m in networks.students}
    arrays: dict[str, Tensor] = {}
    ranks = learner.ranks(len(next(iter(views.values()))), step=0)
    for modality in networks.decoders:
        keep_BK = kept_patches(ranks[modality].to(learner.device), learner.recipe.objective.mask(modality))
        student, decoder = networks.students[modality], networks.decoders[modality]
        images = reconstructed_images(modality, student, decoder, views[modality], keep_BK)
        arrays |= {f"{modality}_{name}": image for name, image in images.items()}
    objective = learner.recipe.objective
    if networks.teachers and objective.refinement != "none":
        cut = {m: 2 * [networks.teachers[m].cut(view)] for m, view in views.items()}
        for modality, weights_BN in run_teachers(networks, objective, cut).weights_BN.items():
            arrays[f"weights_{modality}"] = relative_weights(weights_BN, networks.teachers[modality].grid)
    write_samples(arrays, views, tuple(networks.decoders), out)


def write_samples(
    arrays: dict[str, Tensor], views: dict[str, Tensor], reconstructed: tuple[str, ...], out: Path
) -> None:
    """Writes samples.npz, and samples.png: the views that the run reconstructs, else all as they are.

    Args:
        arrays: what networks make of the views.
        views: of a few clips, by modality.
        reconstructed: modalities with a decoder.
        out: folder of the run.
    """
    arrays = {name: array.float().cpu() for name, array in arrays.items()}
    with replacing(out / SAMPLES) as path, open(path, "wb") as handle:
        numbers = {name: array.numpy() for name, array in arrays.items()}
        np.savez_compressed(handle, **numbers)  # type: ignore[arg-type]  # no name of ours is `allow_pickle`
    shown = arrays if reconstructed else {f"{m}_true": MODALITIES[m].images(v).float().cpu() for m, v in views.items()}
    with replacing(out / PICTURE) as path:
        sheet = _sheet(shown, reconstructed or tuple(views))
        pixels = (255 * sheet + 0.5).clamp(0, 255).byte().permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(path, format="png")


def _sheet(arrays: dict[str, Tensor], modalities: tuple[str, ...]) -> Tensor:
    """Arranges one column per clip, rows true, masked and predicted of each modality: (3, H, W) in 0..1."""
    rows = []
    for modality in modalities:
        true = arrays[f"{modality}_true"]
        for kind in [k for k in ("true", "masked", "predicted") if f"{modality}_{k}" in arrays]:
            stills = MODALITIES[modality].stills(arrays[f"{modality}_{kind}"], true)
            height = round(SHEET_COLUMN * stills.shape[2] / stills.shape[3])
            scaled = F.pad(F.interpolate(stills, (height, SHEET_COLUMN)), (EDGE, 0, EDGE, EDGE))
            rows.append(F.pad(torch.cat(list(scaled), 2), (0, EDGE)))
    return torch.cat(rows, 1)
