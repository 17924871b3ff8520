"""Opens the encoders of others that a row is judged with, and keeps in a run which they are and of which weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from xkd import registry
from xkd.encoders import libraries as _libraries  # noqa: F401 (they register peers)
from xkd.encoders.folder import PEER
from xkd.encoders.peer import Peer, PeerEncoder
from xkd.errors import UserError
from xkd.files import files_in, read_json, sha256, write_json
from xkd.recipe import Recipe
from xkd.settings import PeerSettings

UNKNOWN = "not stated"


def open_peers(recipe: Recipe) -> dict[str, PeerEncoder]:
    """Opens the encoders that the settings of a row name, by modality, in evaluation mode.

    Raises:
        UserError: another modality, no such file of weights, a library that is not there, or what the library says.
    """
    rates = {"video": recipe.clips.fps, "audio": recipe.clips.sample_rate}
    return {m: PeerEncoder(_opened(m, one), m, rates[m]) for m, one in recipe.training.peers.given.items()}


def describe(encoder: PeerEncoder) -> dict[str, str]:
    """Returns what an encoder is, where it comes from, its licence, and a hash that tells its weights."""
    settings, digest = encoder.peer.settings, _digest(encoder.peer)
    file = registry.peers.file(settings.adapter)
    words = [encoder.peer.library or settings.adapter, settings.model, f"of {file.name}" if file else ""]
    told = f", weights {digest[:12]}" if digest else ""
    return {
        "modality": encoder.modality,
        "adapter": settings.adapter,
        "model": settings.model,
        "origin": " ".join(word for word in words if word) + told,
        "licence": settings.licence or encoder.peer.licence or UNKNOWN,
        "sha256": digest,
    }


def save(encoder: PeerEncoder, folder: Path) -> dict[str, str]:
    """Writes what an encoder is into its folder of a run, and returns it; its weights stay where they are."""
    folder.mkdir(parents=True)
    about = describe(encoder)
    write_json(folder / PEER, about)
    return about


def check(encoder: PeerEncoder, folder: Path) -> None:
    """Compares an encoder with that of a run.

    Raises:
        UserError: its weights are others now.
    """
    if read_json(folder / PEER)["sha256"] != _digest(encoder.peer):
        raise UserError(
            f"{folder / PEER}: training.peers.{encoder.modality} has other weights than when this row was made; run "
            "pretrain for it again"
        )


def _opened(modality: str, settings: PeerSettings) -> Peer:
    kind, where = registry.peers[settings.adapter], f"training.peers.{modality}"
    if modality not in kind.modalities:
        raise UserError(f"{where}: {settings.adapter} encodes {' and '.join(kind.modalities)} only")
    if settings.weights and not Path(settings.weights).exists():
        raise UserError(f"{where}.weights: {settings.weights}: no such file")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of layers that a file of weights lacks
            peer: Peer = kind(settings)
            return peer
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except Exception as error:  # whatever a library raises for a bad name, a damaged file or a download that fails
        said = (str(error).strip().splitlines() or [""])[0][:300]
        raise UserError(
            f"{where}: {settings.adapter} cannot open '{settings.model}' ({type(error).__name__}: {said}); without a "
            "network, name a file or folder in `weights`"
        ) from error


def _digest(peer: Peer) -> str:
    """Returns the hash of the weights that the settings name, else of all tensors; empty where there are none."""
    parts, place = peer.state_dict(), peer.settings.weights
    digest = hashlib.sha256()
    if place:
        for path in files_in(Path(place)) if Path(place).is_dir() else [Path(place)]:
            digest.update(f"{path.name} {sha256(path)}\n".encode())
    else:
        for name, value in sorted(parts.items()):
            digest.update(name.encode() + value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest() if place or parts else ""
