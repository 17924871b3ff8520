"""The interface of encoders that are not ours, and what every evaluation asks of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from xkd.errors import UserError
from xkd.modalities import MODALITIES
from xkd.settings import PeerSettings


class Peer(nn.Module, ABC):
    """An encoder that is not ours; subclass it and register the class in `xkd.registry.peers`.

    Args:
        settings: `training.peers.<modality>` of the row.

    Attributes:
        modalities: names of those that it encodes.
        library: name and version of where it comes from.
        licence: of its weights, as far as the library tells it.
    """

    modalities: ClassVar[tuple[str, ...]]
    library: str = ""
    licence: str = ""

    def __init__(self, settings: PeerSettings) -> None:
        super().__init__()
        self.settings = settings

    @abstractmethod
    def forward(self, clips: Tensor, rate: float) -> Tensor:
        """Computes a vector of each clip, (B, D).

        Args:
            clips: video: uint8 frames (B, T, H, W, 3); audio: float samples (B, S) in [-1, 1], mono. On the device that
                the module was moved to.
            rate: frames or samples per second.
        """


class PeerEncoder(nn.Module):
    """A peer as evaluations use it: from the views of a run to features.

    Args:
        rate: of frames or samples in the views.
    """

    def __init__(self, peer: Peer, modality: str, rate: float) -> None:
        super().__init__()
        self.peer, self.modality, self.rate = peer.requires_grad_(False).eval(), modality, rate

    def features(self, view: Tensor) -> Tensor:
        """Computes a vector of each clip, (B, D).

        Args:
            view: normalised frames (B, 3, T, H, W), or samples (B, S).

        Raises:
            UserError: the peer gives something else than one vector of each clip.
        """
        clips = (255 * MODALITIES["video"].images(view)).round().to(torch.uint8) if self.modality == "video" else view
        vectors: Tensor = self.peer(clips, self.rate)
        if vectors.ndim != 2 or len(vectors) != len(view):
            raise UserError(
                f"training.peers.{self.modality}: {self.peer.settings.adapter} gives a tensor of the shape "
                f"{tuple(vectors.shape)} for {len(view)} clips; it has to give a vector of each, (B, D)"
            )
        return vectors
