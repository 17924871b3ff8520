"""Encoders side by side: each gives a column of a table with one row per clip, and those of a run a joint column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xkd import runs
from xkd.data.windows import Window
from xkd.encoders import folder
from xkd.encoders.config import EncoderConfig, VideoInput
from xkd.encoders.pair import joined
from xkd.encoders.pretrained import PretrainedEncoder, load_encoder
from xkd.encoders.reading import Clip
from xkd.errors import UserError
from xkd.files import sha256
from xkd.modalities import MODALITIES

ALONE, JOINT = "vector", "joint"
PLACE = ("file", "start", "end")  # the other columns


def folders_of(encoder: Path, also: Sequence[Path] = (), owner: str = "student") -> dict[str, Path]:
    """Returns the folders of encoders by the names of their columns.

    Args:
        encoder: an encoder's folder: column `vector` if it is alone, else that of its name; or that of a run, whose
            encoders of both modalities are `video` and `audio`.
        also: folders of further encoders: columns of their names.
        owner: which encoders of a run, student or teacher.

    Raises:
        UserError: two columns of one name, or a run without encoders of this owner.
    """
    found = [(encoder.resolve().name, encoder)]
    if (encoder / runs.ENCODERS).is_dir():
        places = [(m, encoder / runs.ENCODERS / f"{m}_{owner}") for m in MODALITIES]
        found = [(modality, place) for modality, place in places if place.is_dir()]
        if not found:
            raise UserError(f"{encoder}: no encoder of a {owner} there; --owner takes the other ones")
    found += [(path.resolve().name, path) for path in also]
    if len(found) == 1:
        return {ALONE: found[0][1]}
    columns = dict(found)
    for name, path in found:
        if name in (*PLACE, JOINT) or columns[name] != path:
            raise UserError(f"{path}: its column '{name}' is there already; rename a copy of the folder")
    return columns


class Columns:
    """Loaded encoders, their networks on one device.

    Args:
        folders: by the names of columns.
        device: for networks and preprocessing.
        fps: frames per second that video is read at; None: those of training.
        whole: whether whole frames are squeezed into the square that the encoder takes, instead of cutting it out of
            their middle.
        tokens: whether columns hold all patch tokens (N, D) instead of their mean (D,).

    Raises:
        UserError: no encoder in a folder, or `fps` without an encoder of video.
    """

    def __init__(
        self,
        folders: dict[str, Path],
        device: torch.device,
        fps: float | None = None,
        whole: bool = False,
        tokens: bool = False,
    ) -> None:
        self._folders, self._tokens = folders, tokens
        self.models = {name: _taking(load_encoder(path), whole).to(device) for name, path in folders.items()}
        self.windows = {name: window_of(model.config, fps, whole) for name, model in self.models.items()}
        if (fps or whole) and all(model.modality.name != VideoInput.MODALITY for model in self.models.values()):
            raise UserError("--fps and --crop are about video, and no encoder here is one of video; leave them out")
        named = [name in self.models and self.models[name].modality.name == name for name in MODALITIES]
        self._paired = all(named) and not tokens

    @property
    def hashes(self) -> dict[str, Any]:
        """What tells these encoders from others: the weights and config of each."""
        return {
            name: [sha256(path / folder.WEIGHTS), self.models[name].config.model_dump(mode="json")]
            for name, path in self._folders.items()
        }

    @torch.inference_mode()
    def features(self, clips: Sequence[Clip]) -> dict[str, Tensor]:
        """Computes the columns of clips: (B, D), or (B, N, D) with tokens, float32 on the CPU."""
        found = {}
        for name, model in self.models.items():
            window = self.windows[name]
            # One after the other: frames are of different widths until they are cropped.
            views = [model.view(torch.from_numpy(clip.values[window])[None], round(window.rate)) for clip in clips]
            network, batch = model.encoder, torch.cat(views)
            found[name] = network(batch)[:, 1:] if self._tokens else network.features(batch)
        if self._paired:
            found[JOINT] = joined(found[modality] for modality in MODALITIES)
        return {name: values.float().cpu() for name, values in found.items()}


def window_of(config: EncoderConfig, fps: float | None = None, whole: bool = False) -> Window:
    """Returns how files are cut for an encoder; for `fps` and `whole` see `Columns`."""
    fed = config.input
    if not isinstance(fed, VideoInput):
        return Window(config.modality, fed.length, fed.rate, config.pad)
    scale = (fed.size, fed.size) if whole else (fed.short_side,)
    return Window(config.modality, fed.length, fps or fed.rate, config.pad, scale)


def _taking(model: PretrainedEncoder, whole: bool) -> PretrainedEncoder:
    """Returns the encoder, or one that takes frames of its square as they are."""
    fed = model.config.input
    if not whole or not isinstance(fed, VideoInput):
        return model
    config = model.config.model_copy(update={"input": fed.model_copy(update={"short_side": fed.size})})
    return PretrainedEncoder(model.encoder, config).eval()
