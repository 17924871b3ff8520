"""config.json of an encoder's folder: all that is needed to rebuild the network and to feed it."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

from pydantic import Field, model_validator

from xkd.modalities import MODALITIES
from xkd.modalities.video import IMAGENET_MEAN, IMAGENET_STD
from xkd.settings import AudioView, Clips, Decoder, Fraction, LogMel, Positive, Settings, VideoView
from xkd.settings.base import Depth, Size
from xkd.settings.params import Base

FORMAT: Final = 1


class VideoInput(Settings):
    """Frames: scaled to `short_side`, the middle `size` x `size` cut out, normalised per colour."""

    MODALITY: ClassVar[str] = VideoView.MODALITY
    CALL: ClassVar[str] = "encoder(frames)                  # uint8 (T, H, W, 3)"
    SAME: ClassVar[tuple[str, ...]] = ("fps", "frames", "size")  # what one encoder may take over from another

    frames: Positive = Field(description="frames of the view that positions were learned for")
    fps: float = Field(gt=0, le=1000)
    short_side: Size = Field(description="pixels of the shorter side before cropping")
    size: Size = Field(description="height and width of the crop in pixels")
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @classmethod
    def of_run(cls, settings: Base) -> VideoInput:
        """Returns the input of a run's encoders."""
        view, clips = settings.views.video_global, settings.clips
        return cls(frames=view.frames, fps=clips.fps, short_side=max(clips.size, view.size), size=view.size)

    @classmethod
    def of_view(cls, view: tuple[int, ...]) -> VideoInput:
        """Returns the input of a released encoder that was trained on views of frames, rows and columns."""
        clips, released = Clips(), VideoView()
        short_side = round(view[1] * clips.size / released.size)
        return cls(frames=view[0], fps=clips.fps, short_side=short_side, size=view[1])

    @property
    def seconds(self) -> float:
        """Length of one view."""
        return self.frames / self.fps

    @property
    def length(self) -> int:
        """Frames that one view is made of."""
        return self.frames

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, rows and columns of a view."""
        return self.frames, self.size, self.size

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.fps

    def __str__(self) -> str:
        return f"{self.frames} frames at {self.fps:g} per second, {self.size} x {self.size} pixels"


class AudioInput(Settings):
    """Audio: mono at `sample_rate`, as log-mel columns."""

    MODALITY: ClassVar[str] = AudioView.MODALITY
    CALL: ClassVar[str] = "encoder(waveform, sample_rate)   # mono, float in [-1, 1]"
    SAME: ClassVar[tuple[str, ...]] = ("sample_rate", "frames", "logmel")

    frames: Positive = Field(description="log-mel columns of the view that positions were learned for")
    sample_rate: Positive
    logmel: LogMel

    @classmethod
    def of_run(cls, settings: Base) -> AudioInput:
        """Returns the input of a run's encoders."""
        frames, rate = settings.views.audio_global.frames, settings.clips.sample_rate
        return cls(frames=frames, sample_rate=rate, logmel=settings.logmel)

    @classmethod
    def of_view(cls, view: tuple[int, ...]) -> AudioInput:
        """Returns the input of a released encoder that was trained on views of mel bands and columns."""
        return cls(frames=view[1], sample_rate=Clips().sample_rate, logmel=LogMel(n_mels=view[0]))

    @property
    def seconds(self) -> float:
        """Length of one view."""
        return self.length / self.sample_rate

    @property
    def length(self) -> int:
        """Samples that one view is made of."""
        return self.frames * self.logmel.hop

    @property
    def shape(self) -> tuple[int, ...]:
        """Mel bands and columns of a view."""
        return self.logmel.n_mels, self.frames

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self.sample_rate

    def __str__(self) -> str:
        return f"{self.frames} log-mel columns of {self.logmel.hop / self.sample_rate * 1000:g} ms"


INPUTS: dict[str, type[VideoInput | AudioInput]] = {fed.MODALITY: fed for fed in (VideoInput, AudioInput)}


class DecoderConfig(Decoder):
    """The decoder that a student was trained with: features need none, images of what it fills in do."""

    mask: Fraction = Field(description="share of the patches that was hidden in training")


class EncoderConfig(Settings):
    """One encoder of one modality."""

    format: Literal[1] = FORMAT
    modality: Literal["video", "audio"]
    owner: Literal["student", "teacher"]
    arch: str = Field("vit", description="name of the backbone")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="the backbone's own settings, if it is a plugin's"
    )
    plugin: str | None = Field(None, description="the plugin file that defines the backbone")
    width: Size
    depth: Depth
    heads: Size
    patch: tuple[Size, ...] = Field(description="(frames, rows, columns) or (mel bands, columns)")
    grid: tuple[Positive, ...] = Field(
        description="patches along each axis of the view that positions were learned for"
    )
    input: VideoInput | AudioInput
    pad: Literal["hold", "loop"] = Field("hold", description="how clips were filled that are shorter than a view")
    origin: str = Field(min_length=1, description="which run or file the weights come from")
    licence: str = Field(min_length=1, description="of the weights")
    decoder: DecoderConfig | None = Field(None, description="of decoder.safetensors, where that file is")
    sha256: dict[str, str] = Field(
        default_factory=dict, description="hash of each file of weights; earlier versions wrote none"
    )

    @model_validator(mode="after")
    def _fed_as_its_modality(self) -> EncoderConfig:
        if self.modality != self.input.MODALITY:
            raise ValueError(f"the input is not that of an encoder of {self.modality}")
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> EncoderConfig:
        if self.width % self.heads:
            raise ValueError(f"the width {self.width} is not a multiple of {self.heads} heads")
        if self.input.shape != tuple(size * number for size, number in zip(self.patch, self.grid, strict=False)):
            raise ValueError(f"a grid of {self.grid} patches of {self.patch} is no view of {self.input.shape}")
        return self

    @property
    def channels(self) -> int:
        """Channels of a view: 3 colours or 1 log-mel."""
        return MODALITIES[self.modality].channels
