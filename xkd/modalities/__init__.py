"""Modalities: how a view of each is cut out of a clip, padded, augmented, fed to a network and drawn."""

from __future__ import annotations

from xkd.modalities.audio import Audio
from xkd.modalities.base import Modality
from xkd.modalities.video import Video

MODALITIES: dict[str, Modality] = {modality.name: modality for modality in (Video(), Audio())}
OTHER = dict(zip(MODALITIES, reversed(MODALITIES), strict=True))
