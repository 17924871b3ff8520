"""Settings of encoders that are not ours: those of other libraries and of plugins, which rows are judged with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from xkd import registry
from xkd.settings.base import Known, Place, Settings, Text


class PeerSettings(Settings):
    """One encoder of another library, or of a plugin."""

    adapter: Annotated[str, Known(registry.peers)] = Field(
        description="timm: an image model, averaged over frames; torchaudio, transformers: a model of waveforms, "
        "averaged over time; or the name that a plugin registered"
    )
    model: Text = Field("", description="name of the model, as the library calls it")
    weights: Place | None = Field(
        None,
        description="file of the weights (transformers: folder of the model); by default those of this name that the "
        "library has in its cache, or downloads",
    )
    licence: Text = Field("", description="of the weights, for the report, where the library does not tell it")


class Peers(Settings):
    """The encoders of a row that is not trained here, one for each modality that it has."""

    video: PeerSettings | None = None
    audio: PeerSettings | None = None

    @property
    def given(self) -> dict[str, PeerSettings]:
        """Those that the settings name, by modality, video first."""
        return {m: one for m, one in (("video", self.video), ("audio", self.audio)) if one}
