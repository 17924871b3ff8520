"""Measures what is in clips: rates, lengths, loudness, colours, motion, signatures of content, log-mel statistics."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from xkd.data import decode
from xkd.data.clips import ClipStore, open_clips
from xkd.data.decode import Video
from xkd.data.opening import MediaError, faults_of
from xkd.data.tracks import FILE_LIMITS
from xkd.data.transcode import check_streams
from xkd.errors import UserError
from xkd.modalities.logmel import LogMelSpectrogram
from xkd.settings import LogMel

FRAMES = 8  # of a clip that are looked at, evenly spaced
CELLS = 8  # the signature of a frame is its brightness in 8 x 8 cells
FINE = 16  # motion is judged in 16 x 16 cells, of which an encoder's noise moves the mean little
BLOCK_SECONDS = 60.0  # of sound at a time, so that hours of it fit in memory
FULL_SCALE = 0.99996  # just below the largest 16-bit sample, 32767 / 32768
RUN = 3  # samples at full scale in a row: a tone that just reaches it does so for one, or two


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of numbers, in float64; those of two sets add up exactly."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Computes the moments of an array of any shape."""
        values = values.astype(np.float64, copy=False)
        mean = float(values.mean()) if values.size else 0.0
        return cls(values.size, mean, float(((values - mean) ** 2).sum()))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if not count:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * other.count / count
        return Moments(count, mean, self.squares + other.squares + apart**2 * self.count * other.count / count)

    @property
    def std(self) -> float:
        """Standard deviation of all numbers."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0


@dataclass(frozen=True)
class Sight:
    """What was measured of the frames of a clip.

    Attributes:
        size: width and height as shown.
        motion: by how much of 255 the brightness of a cell differs between the frames looked at, at most.
        colours: mean red, green and blue, 0 to 1.
        signature: (FRAMES, CELLS, CELLS) uint8, brightness; the same for a mirrored clip.
    """

    seconds: float
    fps: float
    size: tuple[int, int]
    motion: float
    colours: tuple[float, float, float]
    signature: np.ndarray


@dataclass(frozen=True)
class Sound:
    """What was measured of the sound of a clip.

    Attributes:
        peak: largest absolute sample; 1 is full scale.
        clipped: share of the samples at full scale, in runs of `RUN` or more.
        digest: hash of the samples.
        logmel: of the log-mel before normalisation; None where it was not asked for.
    """

    seconds: float
    sample_rate: int
    peak: float
    clipped: float
    digest: str
    logmel: Moments | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured of one clip; None for what it does not have."""

    video: Sight | None = None
    audio: Sound | None = None


@dataclass(frozen=True)
class Spectrum:
    """The log-mel to compute statistics of."""

    logmel: LogMel
    sample_rate: int


def measure_file(path: str, spectrum: Spectrum | None) -> Measured | str:
    """Measures a media file as it is, or returns the reason why it cannot be read."""
    torch.set_num_threads(1)
    try:
        with faults_of(Path(path), FILE_LIMITS.memory_gb):
            found = decode.probe_file(Path(path), FILE_LIMITS)
            check_streams(found, "any")
            sight = _sight_of(Video(Path(path), FILE_LIMITS)) if found.video_codec else None
            sound = _sound_of(Path(path), found.sample_rate or 0, spectrum) if found.audio_codec else None
            return Measured(sight, sound)
    except MediaError as error:
        return str(error)


def measure_prepared(manifest: str, first: int, count: int, spectrum: Spectrum | None) -> list[Measured | str]:
    """Measures usable clips `first` to `first + count` of a manifest; a reason stands for one that cannot be read."""
    torch.set_num_threads(1)
    store = _store(manifest)
    return [_prepared(store, number, spectrum) for number in range(first, first + count)]


@cache
def _store(manifest: str) -> ClipStore:
    return open_clips(manifest)


def _prepared(store: ClipStore, number: int, spectrum: Spectrum | None) -> Measured | str:
    rows, sight, sound = store.manifest, None, None
    try:
        if store.has("video", number):
            fps = float(rows.values("fps")[number])
            times = places(max(round(store.seconds(number) * fps), 1)) / fps
            frames = torch.cat([store.video(number, time, 1 / fps) for time in times.tolist()])
            sight = sight_of(frames.permute(0, 2, 3, 1).numpy(), store.seconds(number), fps)
        if store.has("audio", number):
            rate = int(rows.values("sample_rate")[number])
            if spectrum and spectrum.sample_rate != rate:
                spectrum = None  # nothing resamples prepared clips: the wrong rate is what there is to say
            samples = store.audio(number).numpy()
            sound = sound_of(lambda _: [samples], rate, spectrum)
    except UserError as error:
        return str(error)
    return Measured(sight, sound)


def _sight_of(video: Video) -> Sight:
    return sight_of(video.frames(places(len(video))), video.seconds, video.rate)


def _sound_of(path: Path, rate: int, spectrum: Spectrum | None) -> Sound:
    return sound_of(lambda at: decode.audio_pieces(path, at, FILE_LIMITS), rate, spectrum)


def places(length: int) -> np.ndarray:
    """Returns the numbers of the frames that are looked at, of `length` frames."""
    return np.linspace(0, length - 1, FRAMES).round().astype(int)


def sight_of(frames: np.ndarray, seconds: float, fps: float) -> Sight:
    """Measures frames (FRAMES, H, W, 3) uint8."""
    grey = torch.from_numpy(np.ascontiguousarray(frames)).float().mean(-1)
    fine = torch.nn.functional.adaptive_avg_pool2d(grey, FINE)
    cells = torch.nn.functional.avg_pool2d(fine, FINE // CELLS).numpy()
    # Of the frames and their mirror image, those that are brighter on the left.
    if (cells * (np.arange(CELLS) - (CELLS - 1) / 2)).sum() > 0:
        cells = cells[..., ::-1]
    return Sight(
        seconds,
        fps,
        (frames.shape[2], frames.shape[1]),
        motion=float((fine.amax(0) - fine.amin(0)).max()),
        colours=tuple((frames.mean(axis=(0, 1, 2)) / 255).tolist()),
        signature=np.rint(cells).astype(np.uint8),
    )


def sound_of(pieces: Callable[[int], Iterable[np.ndarray]], rate: int, spectrum: Spectrum | None) -> Sound:
    """Measures sound.

    Args:
        pieces: yields the samples float32 in [-1, 1] at a rate.
        rate: of the sound itself.
        spectrum: the log-mel to compute statistics of.
    """
    samples, peak, clipped, digest = 0, 0.0, 0, hashlib.sha256()
    for block in _blocks(pieces(rate), rate):
        samples += len(block)
        peak = max(peak, float(np.abs(block).max()))
        clipped += _in_runs(np.abs(block) >= FULL_SCALE)
        digest.update(np.rint(block * 32767).astype(np.int16).tobytes())
    moments = _logmel(_blocks(pieces(spectrum.sample_rate), spectrum.sample_rate), spectrum) if spectrum else None
    return Sound(samples / rate, rate, peak, clipped / max(samples, 1), digest.hexdigest()[:16], moments)


def _blocks(pieces: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Joins pieces to blocks of `BLOCK_SECONDS`, about; the last one is shorter."""
    kept: list[np.ndarray] = []
    samples = 0
    for piece in pieces:
        kept.append(piece)
        samples += len(piece)
        if samples >= BLOCK_SECONDS * rate:
            yield np.concatenate(kept)
            kept, samples = [], 0
    if samples:
        yield np.concatenate(kept)


def _in_runs(full: np.ndarray) -> int:
    """Counts the values that are true in runs of `RUN` or more."""
    edges = np.flatnonzero(np.diff(full, prepend=False, append=False))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths >= RUN].sum())


def _logmel(blocks: Iterable[np.ndarray], spectrum: Spectrum) -> Moments:
    transform, total = _transform(spectrum), Moments()
    for block in blocks:
        total += Moments.of(transform(torch.from_numpy(block).double()).numpy())
    return total


@cache
def _transform(spectrum: Spectrum) -> LogMelSpectrogram:
    not_normalised = spectrum.logmel.model_copy(update={"mean": 0.0, "std": 1.0})
    return LogMelSpectrogram(not_normalised, spectrum.sample_rate).double()
