"""The run of a row that is judged with encoders of others: nothing is trained, and its files are those of any run."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from xkd.device import device
from xkd.encoders import peers
from xkd.encoders.peer import PeerEncoder
from xkd.errors import UserError
from xkd.files import write_json
from xkd.recipe import Recipe
from xkd.runs import CONFIG, ENCODERS
from xkd.settings import Peers
from xkd.training.embeddings import save_embeddings
from xkd.training.objective import OWN_COLUMNS
from xkd.training.recorder import Recorder
from xkd.training.samples import write_samples


def tried_peers(recipe: Recipe, views: dict[str, Tensor]) -> dict[str, PeerEncoder]:
    """Opens the encoders that the settings of a row name, by modality, and tries each on a few clips.

    Args:
        views: of these clips, by modality, as evaluations see them.

    Raises:
        UserError: one of them cannot be opened, or gives no vectors, or such that are not finite.
    """
    opened, place = peers.open_peers(recipe), device()
    for modality, encoder in opened.items():
        where = f"training.peers.{modality}: {encoder.peer.settings.adapter}"
        try:
            with torch.inference_mode():
                vectors = encoder.to(place).features(views[modality].to(place))
        except UserError:
            raise
        except Exception as error:  # whatever a library raises, for clips that are too short say
            raise UserError(f"{where}: fails on clips of this row ({type(error).__name__}: {error})") from error
        if not vectors.isfinite().all():
            raise UserError(f"{where}: gives values that are not finite")
    return opened


def save_run(
    encoders: dict[str, PeerEncoder], recipe: Recipe, seed: int, shown: dict[str, Tensor], out: Path
) -> dict[str, str]:
    """Writes encoders/<modality>_student/ and all files of a run that are about training, which are empty.

    Args:
        shown: views of a few clips by modality, for samples.png.

    Returns:
        Origin and licence of each encoder, by modality.
    """
    told = {m: peers.save(encoder, out / ENCODERS / f"{m}_student") for m, encoder in encoders.items()}
    write_json(out / CONFIG, {"seed": seed, "recipe": recipe.model_dump(mode="json")})
    Recorder(OWN_COLUMNS).write(out, [column.name for column in OWN_COLUMNS])
    write_samples({}, shown, (), out)
    save_embeddings({}, (), torch.device("cpu"), out)
    return {m: f"{about['origin']} (licence: {about['licence']})" for m, about in told.items()}


def without_peers(recipe: Recipe) -> Recipe:
    """Returns the same settings with the views of our own encoders."""
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"peers": Peers()})})
