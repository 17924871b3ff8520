"""config.json of an encoder's folder: all that is needed to rebuild the network and to feed it."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, model_validator

from xkd.modalities.video import IMAGENET_MEAN, IMAGENET_STD
from xkd.errors import UserError
from xkd.settings import Decoder, Fraction, LogMel, Positive, Settings

FORMAT: Final = 1


class VideoInput(Settings):
    """Pictures: scaled to `short_side`, the middle `size` x `size` cut out, normalised per colour."""

    frames: Positive = Field(description="pictures of the view that positions were learned for")
    fps: float = Field(gt=0)
    short_side: Positive = Field(description="pixels of the shorter side before cropping")
    size: Positive = Field(description="height and width of the crop in pixels")
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def seconds(self) -> float:
        """What one view lasts."""
        return self.frames / self.fps


class AudioInput(Settings):
    """Sound: mono at `sample_rate`, as log-mel columns."""

    frames: Positive = Field(description="log-mel columns of the view that positions were learned for")
    sample_rate: Positive
    logmel: LogMel

    @property
    def seconds(self) -> float:
        """What one view lasts."""
        return self.frames * self.logmel.hop / self.sample_rate


class DecoderConfig(Decoder):
    """The decoder that a student was trained with: no feature needs it, pictures of what it fills in do."""

    mask: Fraction = Field(description="share of the patches that was hidden in training")


class EncoderConfig(Settings):
    """One encoder of one modality."""

    format: Literal[1] = FORMAT
    modality: Literal["video", "audio"]
    owner: Literal["student", "teacher"]
    width: Positive
    depth: Positive
    heads: Positive
    patch: tuple[Positive, ...] = Field(description="(frames, rows, columns) or (mel bands, columns)")
    grid: tuple[Positive, ...] = Field(
        description="patches along each axis of the view that positions were learned for"
    )
    input: VideoInput | AudioInput
    pad: Literal["hold", "loop"] = Field("hold", description="how clips were filled that are shorter than a view")
    origin: str = Field(min_length=1, description="which run or file the weights come from")
    licence: str = Field(min_length=1, description="of the weights")
    decoder: DecoderConfig | None = Field(None, description="of decoder.safetensors, where that file is")

    @model_validator(mode="after")
    def _fed_as_its_modality(self) -> EncoderConfig:
        if isinstance(self.input, VideoInput) != (self.modality == "video"):
            raise ValueError(f"the input is not that of an encoder of {self.modality}")
        return self

    @property
    def video(self) -> VideoInput:
        """How pictures are fed.

        Raises:
            UserError: the encoder takes sound.
        """
        if not isinstance(self.input, VideoInput):
            raise UserError("an encoder of sound takes no pictures; give it samples, or take an encoder of video")
        return self.input

    @property
    def audio(self) -> AudioInput:
        """How sound is fed.

        Raises:
            UserError: the encoder takes pictures.
        """
        if not isinstance(self.input, AudioInput):
            raise UserError("an encoder of video takes no sound; give it pictures, or take an encoder of sound")
        return self.input

    @property
    def channels(self) -> int:
        """3 colours or 1 log-mel."""
        return 3 if self.modality == "video" else 1

    @property
    def length(self) -> int:
        """Pictures, or samples of sound, that one view is made of."""
        return self.video.frames if self.modality == "video" else self.audio.frames * self.audio.logmel.hop

    @property
    def rate(self) -> float:
        """Pictures, or samples of sound, per second."""
        return self.video.fps if self.modality == "video" else self.audio.sample_rate
