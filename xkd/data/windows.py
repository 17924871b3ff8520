"""Cuts any media file into clips of equal length at equal distances, whatever its own length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xkd.data import decode
from xkd.data.opening import MediaError, faults_of
from xkd.data.tracks import FILE_LIMITS, TRACKS, Cut, Scale
from xkd.modalities import MODALITIES


@dataclass(frozen=True)
class Window:
    """A clip of a track: `length` frames or samples at `rate` per second; `pad` as in clips.pad, frames in `scale`."""

    modality: str
    length: int
    rate: float
    pad: str = "hold"
    scale: Scale = ()

    @property
    def seconds(self) -> float:
        """Length of a clip."""
        return self.length / self.rate

    def of(self, cut: Cut, number: int) -> np.ndarray:
        """Returns a clip that was read, padded to its full length."""
        first = cut.begins[number]
        values = cut.values[self.scale][first : first + self.length]
        return MODALITIES[self.modality].padded(values, self.length, self.pad)


@dataclass(frozen=True)
class Cutting:
    """How files are cut: at every `stride` seconds begins one clip of each window.

    Attributes:
        windows: one or several, of one modality or both.
        every: the stride; None: as long as the shortest window.
    """

    windows: tuple[Window, ...]
    every: float | None = None

    @property
    def stride(self) -> float:
        """Seconds from the start of one clip to that of the next."""
        return self.every or min(window.seconds for window in self.windows)

    @property
    def streams(self) -> tuple[tuple[Window, ...], ...]:
        """Windows that are cut from the same frames or samples, which are decoded once for all of them."""
        groups: dict[tuple[str, float], list[Window]] = {}
        for window in dict.fromkeys(self.windows):
            groups.setdefault((window.modality, window.rate), []).append(window)
        return tuple(map(tuple, groups.values()))

    def clips(self, seconds: float) -> int:
        """Counts the clips of a file. Half of each window lies within the file; a shorter file gives one clip."""
        longest = max(window.seconds for window in self.windows)
        return max(int((seconds - longest / 2) / self.stride + 1 + 1e-9), 1)

    def begins(self, window: Window, clips: range, delay: float = 0.0) -> list[int]:
        """Returns the frames or samples, numbered from the track's start, with which clips begin.

        Args:
            window: of the track.
            clips: numbers of clips.
            delay: seconds by which the track starts later than times are counted from.
        """
        return [round(number * self.stride * window.rate) - round(delay * window.rate) for number in clips]


@dataclass(frozen=True)
class Survey:
    """Clips that a file gives, its length in seconds, and how many seconds after its frames its sound begins."""

    clips: int
    seconds: float
    delay: float = 0.0


def survey(path: str, cutting: Cutting) -> Survey | str:
    """Counts the clips that a file will give, or returns the reason why it gives none.

    Where both modalities are cut, times count from the first frame, and both tracks must be there.
    """
    file, modalities = Path(path), {window.modality for window in cutting.windows}
    try:
        with faults_of(file, FILE_LIMITS.memory_gb):
            found = decode.probe_file(file, FILE_LIMITS)
            delay = found.audio_delay if len(modalities) > 1 else 0.0
            ends = []
            for window, *_ in cutting.streams:
                late = delay if window.modality == "audio" else 0.0
                ends.append(len(TRACKS[window.modality](file, window.rate, found)) / window.rate + late)
    except MediaError as error:
        return str(error)
    return Survey(cutting.clips(min(ends)), max(ends), delay)


def clips_at_once(stream: tuple[Window, ...], stride: float) -> int:
    """Returns how many clips one task reads."""
    track = TRACKS[stream[0].modality]
    apart = stride if track.gaps_are_read else min(stride, max(window.seconds for window in stream))
    return max(round(track.seconds_at_once / apart), 1)


def read_clips(path: str, stream: tuple[Window, ...], begins: Sequence[int]) -> Cut | str:
    """Reads the clips of a track that begin with these frames or samples, in ascending order; or returns a reason.

    Args:
        path: the file.
        stream: windows of one modality and rate.
        begins: at least one.
    """
    window, length = stream[0], max(window.length for window in stream)
    try:
        with faults_of(Path(path), FILE_LIMITS.memory_gb):
            track = TRACKS[window.modality](Path(path), window.rate)
            return track.cut(begins, length, list(dict.fromkeys(window.scale for window in stream)))
    except MediaError as error:
        return str(error)
