"""Audio: samples of a clip to normalised log-mel views (1, bands, columns) (paper section A.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xkd.errors import UserError
from xkd.modalities.base import ClipSource, Cutter, Draw, Feeder, Modality, Number, between, per_clip
from xkd.modalities.logmel import LogMelSpectrogram

if TYPE_CHECKING:
    from xkd.settings import AudioView
    from xkd.settings.params import Base

TIME_CANVAS = 1.5  # length of the virtual canvas around a log-mel; it is as high as the log-mel
CROP_SCALE = (0.6, 1.5)
CUBIC = -0.75  # of the bicubic kernel, as in torch
CACHE_SAMPLES = 2**16  # their spectra fit in the second-level cache of a core, about


class AudioCutter(Cutter):
    """Cuts views out of the mel power of a clip.

    Attributes:
        logmel: the spectrogram of the run.
    """

    def __init__(self, settings: Base, views: Sequence[AudioView], remember: bool = False) -> None:
        self.clips, self.views, mel = settings.clips, views, settings.logmel
        for number, view in enumerate(views):
            if view.frames * mel.hop <= mel.n_fft // 2:
                raise UserError(
                    f"logmel.n_fft: {mel.n_fft} is too long for views.{Audio.name}_{'local' if number else 'global'} "
                    f"of {view.frames * mel.hop} samples; lower it, or raise the frames of the view"
                )
        self.logmel = LogMelSpectrogram(mel, settings.clips.sample_rate)
        self._remember = remember
        self._powers: dict[str, Tensor] = {}

    def local_start(self, seconds: float, number: int, draw: Draw[float]) -> float:
        return draw.time * max(seconds - self._samples(self.views[number]) / self.clips.sample_rate, 0.0)

    def begin(self, clips: Sequence[ClipSource]) -> None:
        """Computes the mel power of clips of nominal length, of which each view is some columns."""
        if not self._remember:
            self._powers.clear()
        samples: dict[int, dict[str, Tensor]] = {}  # by their number
        for clip in clips:
            if clip.nominal and clip.id not in self._powers:
                padded = self._padded(clip.whole(Audio.name), self._nominal)
                samples.setdefault(len(padded), {})[clip.id] = padded
        for length, of in samples.items():
            powers = map(self.logmel.power, torch.stack(list(of.values())).split(max(CACHE_SAMPLES // length, 1)))
            self._powers.update(zip(of, torch.cat(list(powers)), strict=True))

    def cut(self, clip: ClipSource, number: int, start: float, draw: Draw[float]) -> Tensor:
        return self._power(clip, start, self.views[number])

    def finish(self, cuts: Tensor, number: int, draw: Draw[Tensor] | None) -> Tensor:
        if draw is None:
            return self.logmel.scaled(cuts)
        view = self.views[number]
        scaled = self.logmel.scaled(cuts * per_clip(volume_gain(view, draw) ** 2, cuts))
        box = torch.stack([draw.height, draw.width, draw.row, draw.column], 1)
        return resized_crop_logmel(scaled, box) if view.resized_crop else scaled

    def plain(self, clip: ClipSource, start: float, places: Sequence[float]) -> list[Tensor]:
        return [self._power(clip, start, self.views[0])]

    def _samples(self, view: AudioView) -> int:
        """Counts the samples that give the columns of a view; never more than a clip of nominal length holds."""
        return min(view.frames * self.logmel.settings.hop, self._nominal)

    @property
    def _nominal(self) -> int:
        return round(self.clips.seconds * self.clips.sample_rate)

    def _power(self, clip: ClipSource, start: float, view: AudioView) -> Tensor:
        """Returns the mel power (1, n_mels, frames) from `start` seconds on; of a long clip only the cut is read."""
        rate = self.clips.sample_rate
        if not clip.nominal:
            part = clip.part(Audio.name, rate, round(start * rate), self._samples(view))
            return self.logmel.power(self._padded(part, self._samples(view)))[..., : view.frames]
        if clip.id not in self._powers:
            self.begin([clip])
        power = self._powers[clip.id]
        first = min(round(start * rate / self.logmel.settings.hop), power.shape[-1] - view.frames)
        return power[..., first : first + view.frames]

    def _padded(self, samples: Tensor, length: int) -> Tensor:
        return torch.from_numpy(Audio().padded(samples.numpy(), length, self.clips.pad))


class SampleCutter(AudioCutter):
    """Cuts the samples (S,) that the log-mel views of a run are made of; only their volume is augmented."""

    def begin(self, clips: Sequence[ClipSource]) -> None:
        """Does nothing: samples are cut as they are."""

    def cut(self, clip: ClipSource, number: int, start: float, draw: Draw[float]) -> Tensor:
        return self._cut(clip, start, self.views[number])

    def finish(self, cuts: Tensor, number: int, draw: Draw[Tensor] | None) -> Tensor:
        return cuts if draw is None else cuts * per_clip(volume_gain(self.views[number], draw), cuts)

    def plain(self, clip: ClipSource, start: float, places: Sequence[float]) -> list[Tensor]:
        return [self._cut(clip, start, self.views[0])]

    def _cut(self, clip: ClipSource, start: float, view: AudioView) -> Tensor:
        rate, length = self.clips.sample_rate, self._samples(view)
        first = round(start * rate)
        if not clip.nominal:
            return self._padded(clip.part(Audio.name, rate, first, length), length)
        whole = self._padded(clip.whole(Audio.name), self._nominal)
        first = min(first, len(whole) - length)
        return whole[first : first + length]


class AudioFeeder(Feeder):
    """Resamples mono samples (B, S) in [-1, 1] and takes their log-mel: (B, 1, bands, columns)."""

    def __init__(self, fed: Any, whole: Callable[[int], int]) -> None:
        super().__init__(fed, whole)
        self.logmel = LogMelSpectrogram(fed.logmel, fed.sample_rate)

    def forward(self, batch: Tensor, device: torch.device, rate: int | None = None) -> Tensor:
        from torchaudio.functional import resample

        if batch.ndim != 2 or not batch.is_floating_point():
            raise UserError(
                f"an audio encoder takes mono samples (S,) as floats in [-1, 1], not {batch.dtype} "
                f"{tuple(batch.shape[1:])}"
            )
        if not rate:
            raise UserError("an audio encoder needs the sample rate: encoder(waveform, sample_rate)")
        fed = self.settings
        samples = resample(batch.float(), rate, fed.sample_rate).to(device)
        if samples.shape[-1] <= fed.logmel.n_fft // 2:
            raise UserError(f"{samples.shape[-1] / fed.sample_rate:.3f} s of audio are too short for a spectrogram")
        logmel: Tensor = self.logmel(samples)
        return logmel[..., : self.whole(logmel.shape[-1])]


class Audio(Modality):
    """Mono waveforms; a view is a log-mel (1, bands, columns), normalised by the data set's mean and deviation."""

    name, channels, words, unit = "audio", 1, "log-mel", "log-mel columns"
    time_axis, clip_axes, cropped = 1, 1, False
    filled = "the rest is silent"
    cutter, raw_cutter, feeder = AudioCutter, SampleCutter, AudioFeeder

    def held(self, values: np.ndarray, missing: int) -> np.ndarray:
        return np.pad(values, (0, missing))

    def frames(self, settings: Base) -> int:
        return round(settings.clips.seconds * settings.clips.sample_rate) // settings.logmel.hop + 1

    def images(self, view: Tensor) -> Tensor:
        return view[:, 0]

    def blank(self, patches_BNP: Tensor) -> Tensor:
        return patches_BNP.min()  # silence shows better than zero, which is the mean

    def stills(self, images: Tensor, true: Tensor) -> Tensor:
        low, high = true.min(), true.max()
        grey = images.flip(1).unsqueeze(1).expand(-1, 3, -1, -1)
        return ((grey - low) / (high - low)).clamp(0, 1)


def volume_gain(view: AudioView, draw: Draw[Number]) -> Number:
    """Draws the factor on the waveform, uniform in 1 - volume to 1 + volume."""
    return between(draw.volume, (1 - view.volume, 1 + view.volume))


def resized_crop_logmel(logmel: Tensor, box_B4: Tensor) -> Tensor:
    """Crops log-mels (B, 1, mels, frames) at random and resizes them to their shape, bicubic.

    The log-mel lies in the middle of a canvas of zeros (its normalised mean) 1.5 times as
    long; a box of 0.6 to 1.5 times its bands and frames, cut to the canvas, is resized back.

    Args:
        box_B4: draws of each clip's height, width, row and column, float64.
    """
    height_draw, width_draw, row_draw, column_draw = box_B4.unbind(1)
    bands, steps = logmel.shape[-2:]
    length = int(TIME_CANVAS * steps)
    height, width = _extent(height_draw, bands, bands), _extent(width_draw, steps, length)
    top = (row_draw * (bands - height + 1)).floor()
    left = (column_draw * (length - width + 1)).floor() - (length - steps) // 2
    rows, columns = _resizing(bands, top, height, logmel), _resizing(steps, left, width, logmel)
    return rows @ logmel @ columns.transpose(-1, -2)


def _extent(uniform_B: Tensor, size: int, most: int) -> Tensor:
    """Draws the length of a box along an axis, in whole bands or frames: (B,)."""
    return (between(uniform_B, CROP_SCALE) * size).floor().clamp(1, most)


def _resizing(size: int, first_B: Tensor, length_B: Tensor, like: Tensor) -> Tensor:
    """Makes matrices (B, 1, size, size) that resize a box (first, length) of `size` values to all; beyond lie zeros."""
    first, length = first_B[:, None, None], length_B[:, None, None]
    taps = torch.arange(-1, 3, device=like.device)
    place = torch.arange(size, device=like.device)[:, None] * (length - 1) / max(size - 1, 1)
    near = place.floor() + taps
    away = (place - near).abs()
    inner = ((CUBIC + 2) * away - (CUBIC + 3)) * away**2 + 1
    outer = CUBIC * (((away - 5) * away + 8) * away - 4)
    source = (torch.minimum(near.clamp_min(0), length - 1) + first).long()
    weight = torch.where(away <= 1, inner, outer) * ((source >= 0) & (source < size))
    matrix = like.new_zeros(len(first), size, size)
    return matrix.scatter_add_(2, source.clamp(0, size - 1), weight.to(like.dtype))[:, None]
