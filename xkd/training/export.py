"""Writes and reads what pretraining leaves for downstream use: encoder folders, and the settings of the run."""

from __future__ import annotations

import json
from pathlib import Path

from xkd import runs
from xkd.encoders import folder
from xkd.encoders.config import INPUTS, DecoderConfig, EncoderConfig
from xkd.encoders.peer import PeerEncoder
from xkd.encoders.peers import check, open_peers
from xkd.files import write_json
from xkd.models.encoder import Encoder
from xkd.models.head import ProjectionHead
from xkd.models.networks import Networks
from xkd.params import read_recipe
from xkd.recipe import Recipe
from xkd.runs import CONFIG, ENCODERS
from xkd.training.build import backbone, modality_shapes
from xkd.training.start import given_encoders


def save_encoders(networks: Networks, recipe: Recipe, seed: int, out: Path) -> None:
    """Writes encoders/<modality>_<owner>/ for every encoder of the run, and config.json, the run's settings.

    Blocks that a variant shares are stored in each of its encoders, so that each can be used alone. A student's
    decoder is stored with it, to show reconstructions, and a head where it reads the features of its encoder.
    Encoders that the run was given and did not train keep their configs: a given teacher is stored as a teacher.
    """
    untrained = recipe.training.mode == "none"
    given = given_encoders(recipe.training.weights) if untrained else {}
    both = (
        ("student", networks.students, networks.student_heads),
        ("teacher", networks.teachers, networks.teacher_heads),
    )
    for owner, encoders, heads in both:
        for modality, encoder in encoders.items():
            config = encoder_config(recipe, modality, owner, seed)
            if modality in given:
                config = given[modality].model_copy(update={"decoder": None})
            head = dict(heads.items()).get(modality) if networks.head_input == "patches" else None
            decoder = dict(networks.decoders.items()).get(modality) if owner == "student" else None
            if decoder is not None:
                config = config.model_copy(update={"decoder": decoder_config(recipe, modality)})
            folder.save(encoder, config, out / ENCODERS / f"{modality}_{config.owner}", head, decoder)
    write_json(out / CONFIG, {"seed": seed, "recipe": recipe.model_dump(mode="json")})


def encoder_config(recipe: Recipe, modality: str, owner: str, seed: int) -> EncoderConfig:
    """Returns the config of an encoder of a run."""
    shape = modality_shapes(recipe)[modality]
    start = given_encoders(recipe.training.weights).get(modality)
    return EncoderConfig(
        modality=modality,
        owner=owner,
        **folder.described(backbone(recipe.model)),
        patch=shape.patch,
        grid=shape.grid,
        input=INPUTS[modality].of_run(recipe),
        pad=recipe.clips.pad,
        origin=f"trained with xkd on {recipe.dataset}: ablation {recipe.ablation}, seed {seed}"
        + (f", starting from: {start.origin}" if start else ""),
        licence=start.licence if start else "not stated (not the weights released by the authors of XKD)",
    )


def decoder_config(recipe: Recipe, modality: str) -> DecoderConfig:
    """Returns the config of a decoder of a run."""
    return DecoderConfig(**recipe.model.decoder.model_dump(), mask=recipe.objective.mask(modality))


def load_recipe(run: Path) -> Recipe:
    """Reads the effective settings that a run was trained with.

    Raises:
        UserError: no complete run in the folder, or one whose settings this version does not know.
    """
    runs.check(run)
    path = run / CONFIG
    return read_recipe(json.loads(path.read_text())["recipe"], str(path))


def load_encoders(run: Path) -> dict[tuple[str, str], Encoder]:
    """Loads all encoders of a finished run, by (owner, modality): owner student or teacher, modality video or audio.

    They are in evaluation mode and need no gradient. A run has only the encoders that it trained:
    `recon_video` has one student, runs without teachers have no teacher.

    Raises:
        UserError: no complete run in the folder, or weights do not fit the settings beside them.
    """
    loaded = [folder.load(path) for path in _folders(run)]
    return {(config.owner, config.modality): encoder for encoder, config in loaded}


def load_heads(run: Path) -> dict[tuple[str, str], ProjectionHead]:
    """Loads the projection heads of a finished run's encoders, by (owner, modality); none where it had no teachers."""
    heads = {path: folder.load_head(path) for path in _folders(run)}
    return {_key(path): head for path, head in heads.items() if head is not None}


def load_peers(run: Path) -> dict[tuple[str, str], PeerEncoder]:
    """Opens the encoders of a run that are not ours, by (owner, modality); none where it has its own.

    Raises:
        UserError: no complete run in the folder, or they cannot be opened, or are others than when it was made.
    """
    peers = {("student", modality): encoder for modality, encoder in open_peers(load_recipe(run)).items()}
    for (owner, modality), encoder in peers.items():
        check(encoder, run / ENCODERS / f"{modality}_{owner}")
    return peers


def weights_files(run: Path) -> dict[tuple[str, str], Path]:
    """Returns the file of each encoder's weights, or for one that is not ours what tells them, by (owner, modality)."""
    ours = {_key(path): path / folder.WEIGHTS for path in _folders(run)}
    return ours | {_key(path): path / folder.PEER for path in runs.encoder_folders(run) if _key(path) not in ours}


def _folders(run: Path) -> list[Path]:
    """Returns the folders of a run's own encoders."""
    return [path for path in runs.encoder_folders(run) if not (path / folder.PEER).is_file()]


def _key(path: Path) -> tuple[str, str]:
    modality, owner = path.name.split("_")
    return owner, modality
