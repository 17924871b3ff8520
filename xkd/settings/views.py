"""Settings of the augmented views that the networks see."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from xkd import registry
from xkd.settings.base import Few, Fraction, Hue, Open, Positive, Settings, Size, Strength
from xkd.settings.data import LogMel


class View(Open):
    """One augmented view of a modality. Plugins' augmentations stand here by name, e.g. `noise: {strength: 0.1}`."""

    REGISTRY = registry.augmentations
    MODALITY: ClassVar[str]

    frames: Positive

    @model_validator(mode="after")
    def _augmentations_are_of_this_modality(self) -> Self:
        for name in self.plugged:
            known = registry.augmentations[name].modalities
            if self.MODALITY not in known:
                raise ValueError(f"augmentation '{name}' is for {' and '.join(known)}, not for {self.MODALITY}")
        return self


class VideoView(View):
    """One augmented crop of the frames. Defaults: the released global view."""

    MODALITY = "video"

    frames: Size = 32
    size: Size = Field(112, description="height and width in pixels")
    crop_area: tuple[Fraction, Fraction] = Field(
        (0.2, 1.0), description="random resized crop; equal bounds of 0: plain random crop"
    )
    flip: Fraction = Field(0.5, description="probability of a horizontal flip; 0 where mirroring changes the label")
    jitter: tuple[Strength, Strength, Strength, Hue] = Field(
        (0.4, 0.4, 0.4, 0.2), description="brightness, contrast, saturation, hue"
    )
    grey: Fraction = 0.0
    blur: Fraction = Field(0.0, description="probability of a Gaussian blur, sigma 0.1 to 2")

    def shape(self, logmel: LogMel) -> tuple[int, ...]:
        """Returns frames, rows and columns."""
        return self.frames, self.size, self.size


class AudioView(View):
    """One augmented crop of the log-mel spectrogram. Defaults: the released global view."""

    MODALITY = "audio"

    frames: Positive = Field(448, description="log-mel frames (columns)")
    volume: Fraction = Field(0.1, description="gain drawn from 1 - volume to 1 + volume")
    resized_crop: bool = Field(False, description="random resized crop of the log-mel (released local view)")

    def shape(self, logmel: LogMel) -> tuple[int, ...]:
        """Returns mel bands and columns."""
        return logmel.n_mels, self.frames


class Views(Settings):
    """The views that students and teachers get of a clip (paper section 4)."""

    video_global: VideoView = VideoView()
    video_local: VideoView = VideoView(frames=8, size=96, crop_area=(0.08, 0.4), grey=0.2, blur=0.5)
    audio_global: AudioView = AudioView()
    audio_local: AudioView = AudioView(frames=112, volume=0.2, resized_crop=True)
    local_views: Few = Field(1, description="local views per clip and modality (released: 1; MAS 3)")

    def of(self, modality: str) -> dict[str, VideoView | AudioView]:
        """Returns a modality's views by name, the global one first."""
        return {f"{modality}_{extent}": getattr(self, f"{modality}_{extent}") for extent in ("global", "local")}
