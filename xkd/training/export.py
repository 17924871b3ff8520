"""Encoders as files: what pretraining leaves for downstream use."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from xkd.errors import UserError
from xkd.files import replacing, write_json
from xkd.models.networks import Networks, make_encoders
from xkd.models.vit import Encoder
from xkd.params import read_recipe
from xkd.settings import Recipe
from xkd.training.build import modality_shapes, sizes

WEIGHTS = "encoders.safetensors"
CONFIG = "config.json"


def save_encoders(networks: Networks, recipe: Recipe, seed: int, out: Path) -> None:
    """Writes encoders.safetensors (keys owner.modality.parameter) and config.json.

    Blocks that a variant shares are stored once per modality, so that each encoder can be used alone.
    """
    tensors = {}
    for owner, encoders in (("student", networks.students), ("teacher", networks.teachers)):
        for modality, encoder in encoders.items():
            for name, value in encoder.state_dict().items():
                tensors[f"{owner}.{modality}.{name}"] = value.detach().cpu().clone().contiguous()
    with replacing(out / WEIGHTS) as path:
        save_file(tensors, path)
    write_json(out / CONFIG, {"seed": seed, "recipe": recipe.model_dump(mode="json")})


def load_recipe(run: Path) -> Recipe:
    """The effective settings a run was trained with.

    Raises:
        UserError: no finished run in the folder, or one whose settings this version does not know.
    """
    path = run / CONFIG
    if not path.exists():
        raise UserError(f"{path}: no finished run here; run `python -m xkd pretrain ... --out {run}` first")
    return read_recipe(json.loads(path.read_text())["recipe"], str(path))


def load_encoders(run: Path) -> dict[tuple[str, str], Encoder]:
    """All encoders of a finished run, by (owner, modality): owner student or teacher, modality video or audio.

    They are in evaluation mode and need no gradient. A run holds only what it trained:
    `recon_video` has one student, runs without teachers have no teacher.

    Raises:
        UserError: a file is missing, or the weights do not fit the settings beside them.
    """
    recipe, weights = load_recipe(run), run / WEIGHTS
    if not weights.exists():
        raise UserError(f"{weights}: missing; run `python -m xkd pretrain ... --out {run}` again")
    tensors = load_file(weights)
    owners = {tuple(key.split(".")[:2]) for key in tensors}
    encoders = {}
    for owner, modality in sorted(owners):
        encoder = make_encoders({modality: modality_shapes(recipe)[modality]}, sizes(recipe.model), shared=False)[
            modality
        ]
        prefix = f"{owner}.{modality}."
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        _load_strictly(encoder, state, weights)
        encoders[owner, modality] = encoder.requires_grad_(False).eval()
    return encoders


def _load_strictly(module: nn.Module, state: dict, source: Path) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{source}: does not fit {CONFIG} beside it: {' '.join(str(error).split())}") from None
