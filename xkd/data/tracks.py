"""The tracks of media files: frames or samples by number, at any rate, and clips of them."""

from __future__ import annotations

import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from xkd.data import decode
from xkd.data.decode import CHUNK_PIXELS, MediaFacts, Video
from xkd.data.opening import MediaError
from xkd.data.transcode import UNSUPPORTED
from xkd.modalities import MODALITIES
from xkd.modalities.video import frames_between, resized
from xkd.settings import Limits

FILE_LIMITS = Limits()
FIRST_FRAMES = 4  # decoded before their size is known

Scale = tuple[int, ...]  # pixels of the shorter side, or height and width; (): as the frames are


@dataclass(frozen=True)
class Cut:
    """Clips of a track, cut out of frames or samples that they may share.

    Attributes:
        values: frames (T, H, W, 3) uint8 in each scale, or samples (S,) float32.
        begins: where each clip begins in them.
    """

    values: dict[Scale, np.ndarray]
    begins: tuple[int, ...]


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
    gaps_are_read: ClassVar[bool]  # decoding reaches a clip through all that lies before it

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

    def cut(self, begins: Sequence[int], length: int, scales: Sequence[Scale]) -> Cut:
        """Reads clips of up to `length` frames or samples; those that overlap are decoded once."""
        starts, position = np.array(begins), 0
        places: list[int] = []
        found: list[dict[Scale, np.ndarray]] = []
        gaps = np.diff(starts) > (np.inf if self.gaps_are_read else length)
        for some in np.split(starts, np.flatnonzero(gaps) + 1):
            first, last = int(some[0]), int(some[-1])
            pieces = list(self._pieces(first, last - first + length, scales))
            found += pieces
            places += (some - first + position).tolist()
            position += sum(len(piece[scales[0]]) for piece in pieces)
        if position <= places[-1]:
            raise MediaError("unreadable: changed while it was read")
        return Cut({scale: np.concatenate([piece[scale] for piece in found]) for scale in scales}, tuple(places))

    def _pieces(self, first: int, count: int, scales: Sequence[Scale]) -> Iterator[dict[Scale, np.ndarray]]:
        """Reads consecutive frames or samples, some at a time, in each scale."""
        yield dict.fromkeys(scales, self.part(first, count))


class VideoTrack(Track):
    """The frames of a file at `rate` per second."""

    seconds_at_once = 16.0
    gaps_are_read = False

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

    def _pieces(self, first: int, count: int, scales: Sequence[Scale]) -> Iterator[dict[Scale, np.ndarray]]:
        """Bounds the memory of large frames: a few are decoded at a time."""
        last, step = min(first + count, len(self)), FIRST_FRAMES
        while first < last:
            frames = self.part(first, min(step, last - first))
            first += len(frames)
            step = max(CHUNK_PIXELS // (frames.shape[1] * frames.shape[2]), 1)
            yield {scale: scaled(frames, scale) for scale in scales}


class AudioTrack(Track):
    """The samples of a file's audio at `rate` per second."""

    # A later part is reached by decoding what lies before: parts are long, and decoding is hundreds of times faster
    # than the network.
    seconds_at_once = 900.0
    gaps_are_read = True

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


def scaled(frames: np.ndarray, scale: Scale) -> np.ndarray:
    """Resizes frames (T, H, W, 3) uint8, with the values that an encoder's own preprocessing gives."""
    size = frames.shape[1:3]
    if scale in ((), size, (min(size),)):
        return frames
    if multiprocessing.parent_process():  # one of several processes that decode
        torch.set_num_threads(1)
    images = resized(torch.from_numpy(frames).permute(0, 3, 1, 2), list(scale))
    return images.permute(0, 2, 3, 1).contiguous().numpy()
