"""Cuts any media file into consecutive clips of one length, whatever its own length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from xkd.data import decode
from xkd.data.decode import MediaFacts, Video
from xkd.data.opening import MediaError, faults_of
from xkd.data.transcode import UNSUPPORTED
from xkd.modalities import MODALITIES
from xkd.modalities.video import frames_between
from xkd.settings import Limits

FILE_LIMITS = Limits()


@dataclass(frozen=True)
class Window:
    """The way a file is cut: `length` frames or samples a clip, at `rate` per second; `pad` as in clips.pad."""

    modality: str
    length: int
    rate: float
    pad: str = "hold"


class Track(ABC):
    """One modality of a media file.

    Args:
        path: the file.
        rate: frames or samples per second.
        found: contents of the file; None: it was checked before.
        together: whether times count from the file's first frame, where it has any, not from the track's beginning.

    Raises:
        MediaError: the file has no such track, or it cannot be decoded; by every method.
    """

    seconds_at_once: ClassVar[float]  # most that one task reads

    def __init__(self, path: Path, rate: float, found: MediaFacts | None = None, together: bool = False) -> None:
        self._path, self._rate = path, rate

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def seconds(self) -> float:
        """Length of the track."""
        return len(self) / self._rate

    @abstractmethod
    def part(self, first: int, count: int, hold: bool = False) -> np.ndarray:
        """Reads frames (T, H, W, 3) uint8 or samples (S,) float32 from number `first` on; fewer at the track's end.

        Args:
            hold: past the end, return the last frame instead of nothing.
        """


class VideoTrack(Track):
    """The frames of a file at `rate` per second."""

    seconds_at_once = 16.0

    def __init__(self, path: Path, rate: float, found: MediaFacts | None = None, together: bool = False) -> None:
        if found and found.video_codec is None:
            raise MediaError("no video")
        if found and found.video_codec in UNSUPPORTED:
            raise MediaError(f"codec {found.video_codec} is not supported")
        super().__init__(path, rate)
        self._video = Video(path, FILE_LIMITS)
        self._numbers = self._video.at_rate(rate)

    def __len__(self) -> int:
        return len(self._numbers)

    def part(self, first: int, count: int, hold: bool = False) -> np.ndarray:
        if not hold and first >= len(self):
            return np.empty((0, 0, 0, 3), np.uint8)
        return self._video.frames(self._numbers[frames_between(first, count, len(self))])


class AudioTrack(Track):
    """The samples of a file's audio at `rate` per second."""

    # A later part is reached by decoding what lies before: parts are long, and decoding is hundreds of times faster
    # than the network.
    seconds_at_once = 900.0

    def __init__(self, path: Path, rate: float, found: MediaFacts | None = None, together: bool = False) -> None:
        if found and found.audio_codec is None:
            raise MediaError("no audio")
        super().__init__(path, round(rate))
        self._declared = found.declared_seconds if found else None
        self._late = round(found.audio_delay * round(rate)) if found and found.video_codec and together else 0

    def __len__(self) -> int:
        return sum(len(piece) for piece in decode.audio_pieces(self._path, round(self._rate), FILE_LIMITS))

    @property
    def seconds(self) -> float:
        return self._declared or super().seconds

    def part(self, first: int, count: int, hold: bool = False) -> np.ndarray:
        """Decodes from the start, since seeking is inexact in compressed audio, and keeps what was asked for."""
        begin, position, kept = first - self._late, 0, []
        end = max(begin + count, 0)
        for piece in decode.audio_pieces(self._path, round(self._rate)):
            kept.append(piece[max(max(begin, 0) - position, 0) : max(end - position, 0)])
            position += len(piece)
            if position >= end:
                break
        return np.pad(np.concatenate(kept), (min(max(-begin, 0), count), 0))


TRACKS: dict[str, type[Track]] = dict(zip(MODALITIES, (VideoTrack, AudioTrack), strict=True))


@dataclass(frozen=True)
class Survey:
    """Clips that a file gives, and its length in seconds."""

    clips: int
    seconds: float


def survey(path: str, window: Window) -> Survey | str:
    """Counts the clips that a file will give, or returns the reason why it gives none.

    A rest of half a clip or more makes a clip of its own; so does any file that is shorter than one clip.
    """
    try:
        with faults_of(Path(path), FILE_LIMITS.memory_gb):
            found = decode.probe_file(Path(path), FILE_LIMITS)
            length = len(TRACKS[window.modality](Path(path), window.rate, found))
    except MediaError as error:
        return str(error)
    return Survey(max(int(length / window.length + 0.5), 1), length / window.rate)


def read_clips(path: str, window: Window, first: int, count: int) -> list[np.ndarray] | str:
    """Reads clips `first` to `first + count`: frames (T, H, W, 3) uint8 or samples (S,) float32; or returns a reason.

    The last clip of a file is padded to the full length.
    """
    size = window.length
    try:
        with faults_of(Path(path), FILE_LIMITS.memory_gb):
            values = TRACKS[window.modality](Path(path), window.rate).part(first * size, count * size)
            return [_padded(values[number * size : (number + 1) * size], window) for number in range(count)]
    except MediaError as error:
        return str(error)


def _padded(values: np.ndarray, window: Window) -> np.ndarray:
    if not len(values):
        raise MediaError("unreadable: changed while it was read")
    return MODALITIES[window.modality].padded(values, window.length, window.pad)
