"""`load_pair`: the video and the audio encoder of one training, which give clips a joint vector."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd import runs
from xkd.encoders import folder, hub
from xkd.encoders.card import card
from xkd.encoders.pretrained import PretrainedEncoder, load_encoder
from xkd.encoders.sending import Shareable, check_no_run
from xkd.errors import UserError
from xkd.files import replacing
from xkd.modalities import MODALITIES


class PairFeatures(NamedTuple):
    """Features of both modalities, (B, D) each, and both side by side, each L2-normalised: (B, D_v + D_a).

    Of single clips they have no B.
    """

    joint: Tensor
    video: Tensor
    audio: Tensor


def joined(features: Iterable[Tensor]) -> Tensor:
    """Returns features (..., D) of several encoders side by side, each L2-normalised: (..., sum of D)."""
    return torch.cat([F.normalize(one, dim=-1) for one in features], -1)


class PretrainedPair(nn.Module, Shareable):
    """The encoders of both modalities; see `PretrainedEncoder`."""

    def __init__(self, video: PretrainedEncoder, audio: PretrainedEncoder) -> None:
        super().__init__()
        self.video, self.audio = video, audio

    def forward(self, frames: Tensor | np.ndarray, samples: Tensor | np.ndarray, sample_rate: int) -> PairFeatures:
        """Computes features of the frames and of the sound of the same clips, as probes of `both` read them.

        Args:
            frames: uint8 (T, H, W, 3) or (B, T, H, W, 3).
            samples: mono, (S,) or (B, S).
            sample_rate: of `samples`.

        Raises:
            UserError: as of `PretrainedEncoder`, or other numbers of clips.
        """
        video, audio = self.video(frames), self.audio(samples, sample_rate)
        if video.shape[:-1] != audio.shape[:-1]:
            raise UserError(
                f"frames {tuple(frames.shape)} and samples {tuple(samples.shape)} are not of equally many clips"
            )
        return PairFeatures(joined((video, audio)), video, audio)

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, *, revision: str | None = None, owner: str = "student", **download: Any
    ) -> PretrainedPair:
        """Loads both encoders of a run that was pushed to the hub, or of a folder as `load_pair` does.

        For arguments and errors see `PretrainedEncoder.from_pretrained` and `load_pair`.
        """
        files = [folder.WEIGHTS, folder.CONFIG, folder.CARD]
        patterns = [f"{runs.ENCODERS}/{modality}_{owner}/{name}" for modality in MODALITIES for name in files]
        return load_pair(hub.folder_of(name_or_folder, revision, patterns, **download), owner=owner)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes a folder with both encoders and a card, for `from_pretrained` and `load_pair`.

        Raises:
            UserError: the folder is that of a run.
        """
        root, configs = Path(save_directory), {}
        check_no_run(root)
        for encoder in (self.video, self.audio):
            place = f"{runs.ENCODERS}/{encoder.modality.name}_{encoder.config.owner}"
            encoder.save_pretrained(root / place)
            configs[place] = folder.read_config(root / place)
        with replacing(root / folder.CARD) as path:
            path.write_text(card(configs), encoding="utf-8")


def load_pair(*folders: str | Path, owner: str = "student") -> PretrainedPair:
    """Loads both encoders of a run, or those in two folders.

    Args:
        folders: the folder of a run, or those of a video and an audio encoder.
        owner: which encoders of a run, student or teacher.

    Raises:
        UserError: as of `load_encoder`, or not one encoder of each modality.
    """
    places = [Path(path) for path in folders]
    if len(places) == 1:
        places = [places[0] / runs.ENCODERS / f"{modality}_{owner}" for modality in MODALITIES]
    encoders = [load_encoder(place) for place in places]
    found = [encoder.modality.name for encoder in encoders]
    if sorted(found) != sorted(MODALITIES):
        given = f"{', '.join(map(str, folders))}: encoders of {' and '.join(found)}" if found else "no folder"
        raise UserError(f"{given}; a pair takes one of {' and one of '.join(MODALITIES)}, or the folder of a run")
    return PretrainedPair(**dict(zip(found, encoders, strict=True))).eval()
