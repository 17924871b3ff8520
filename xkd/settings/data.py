"""Settings of data: data sets, prepared clips, limits of media files, log-mel spectrograms."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from xkd import registry
from xkd.settings.base import Known, Place, Positive, Seed, Settings, Size


class ShardSettings(Settings):
    """How the prepared clips of a data set are packed into shards: large files, for network file systems."""

    form: Literal["encoded", "decoded"] = Field(
        "encoded",
        description="encoded: the prepared files; decoded: their frames and samples, which take many times the room "
        "and a fraction of the time to read",
    )
    gb: float = Field(1.0, gt=0, le=1000, description="size of a shard in GB, about")


class Dataset(Settings):
    """One data set: which it is, where it comes from and how much of it to take."""

    kind: Annotated[str, Known(registry.layouts)] = Field(
        description="embedded (*_digits), of the paper, or own files: a folder per class, or a CSV that lists them"
    )
    source: Place | None = Field(
        None,
        description="folder: the folder; manifest: the CSV; audioset: a folder of clips; else a local copy "
        "or the address of a mirror, instead of the official place",
    )
    limit: Positive | None = Field(
        None, description="at most this many clips per class and split, always the same ones; for a first try"
    )
    train_clips: Positive = Field(4000, description="clips to make (embedded data set only)")
    test_clips: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        2000, description="clips to make (embedded data set only); none are needed where rows are only pretrained"
    )
    seed: Seed = Field(0, description="seed of the generated clips (embedded data set only)")
    paired: bool = Field(
        True,
        description="whether picture and sound show the same digit (embedded data set only); false: a control, whose "
        "labels are those of the picture",
    )
    require: Literal["both", "video", "audio", "any"] | None = Field(
        None,
        description="which streams a clip must have to be usable; others are recorded and left out. By default video "
        "for UCF101 and HMDB51, audio for ESC-50 and FSD50K, both for all others",
    )
    size: Size | None = Field(
        None, description="instead of clips.size, for tasks whose views are larger than those of pretraining"
    )
    shards: ShardSettings | None = Field(
        None,
        description="pack the prepared clips into shards, which are read instead; by default, single files are read",
    )


class Clips(Settings):
    """The training-ready clips that `prepare` makes."""

    seconds: float = Field(4.0, gt=0, le=3600, description="length of a training clip in seconds (paper: 4)")
    fps: float = Field(8.0, gt=0, le=1000, description="frames per second (paper: 8)")
    size: Size = Field(128, description="shorter side of the prepared frames in pixels")
    sample_rate: int = Field(16000, ge=1, le=1_000_000, description="audio samples per second, mono (paper: 16000)")
    pack: bool = Field(False, description="also keep decoded clips as memory-mapped arrays; for small data sets")
    shortest: float = Field(
        0.0, ge=0, description="seconds that a clip must last to be usable; 0: every clip that has a frame or a sample"
    )
    silent: Literal["keep", "drop"] = Field(
        "keep",
        description="what becomes of clips whose sound is silent, with no sample above -60 dBFS; drop: they are left "
        "out, with the reason, unless the data set requires video only",
    )
    pad: Literal["hold", "loop"] = Field(
        "hold",
        description="how a clip that is shorter than a view fills it; hold: the last frame stays and sound goes "
        "silent; loop: both start again from the beginning",
    )


class Limits(Settings):
    """Limits of one media file. A file outside of them is left out, with the reason; nothing else depends on them."""

    seconds: float = Field(21600.0, gt=0, description="most seconds of a file")
    side: Positive = Field(16384, description="most pixels of either side of a frame")
    aspect: float = Field(16.0, ge=1, description="most pixels of the longer side per pixel of the shorter one")
    apart: float = Field(60.0, ge=0, description="most seconds between the starts of sound and frames")
    fps: tuple[float, float] = Field((0.02, 1000.0), description="lowest and highest frame rate")
    still: float = Field(60.0, gt=0, description="most seconds for which one frame stays")
    sample_rate: tuple[Positive, Positive] = Field((1000, 768000), description="lowest and highest sample rate")
    memory_gb: float = Field(8.0, gt=0, description="most memory that the process which reads a file takes for it")

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Limits:
        for name, (low, high) in (("fps", self.fps), ("sample_rate", self.sample_rate)):
            if low > high:
                raise ValueError(f"{name}: {low:g} to {high:g}: the lower bound comes first")
        return self


class LogMel(Settings):
    """Log-mel spectrogram (paper section A.2; released configuration)."""

    n_fft: int = Field(1024, ge=2, le=1_000_000, multiple_of=2)
    hop: int = Field(143, ge=1, le=1_000_000)
    n_mels: Size = 80
    f_min: float = Field(0.0, ge=0, le=500_000)
    f_max: float = Field(8000.0, gt=0, le=500_000)
    floor: float = Field(1.19e-7, gt=0, description="added to mel power before the logarithm")
    mean: float = Field(-5.3688107, description="subtracted after the logarithm")
    std: float = Field(4.410007, gt=0, description="divided by after the logarithm")

    @model_validator(mode="after")
    def _bands_are_ordered(self) -> LogMel:
        if self.f_min >= self.f_max:
            raise ValueError(f"f_min {self.f_min:g} is not below f_max {self.f_max:g}")
        return self
