"""Settings of the augmented views that the networks see."""

from __future__ import annotations

from pydantic import Field

from xkd import registry
from xkd.settings.base import Few, Fraction, Hue, Open, Positive, Settings, Size, Strength


class VideoView(Open):
    """One augmented crop of the frames. Defaults: the released global view."""

    REGISTRY = registry.augmentations

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


class AudioView(Open):
    """One augmented crop of the log-mel spectrogram. Defaults: the released global view."""

    REGISTRY = registry.augmentations

    frames: Positive = Field(448, description="log-mel frames (columns)")
    volume: Fraction = Field(0.1, description="gain drawn from 1 - volume to 1 + volume")
    resized_crop: bool = Field(False, description="random resized crop of the log-mel (released local view)")


class Views(Settings):
    video_global: VideoView = VideoView()
    video_local: VideoView = VideoView(frames=8, size=96, crop_area=(0.08, 0.4), grey=0.2, blur=0.5)
    audio_global: AudioView = AudioView()
    audio_local: AudioView = AudioView(frames=112, volume=0.2, resized_crop=True)
    local_views: Few = Field(1, description="local views per clip and modality (released: 1; MAS 3)")
