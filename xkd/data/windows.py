"""Any media file as consecutive clips of one length, whatever its own length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xkd.data import decode
from xkd.data.decode import MediaError, Video
from xkd.data.prepare import UNSUPPORTED


@dataclass(frozen=True)
class Cut:
    """How a file is cut: `length` pictures or samples a clip, at `rate` per second, of one modality."""

    modality: str
    length: int
    rate: float


@dataclass(frozen=True)
class Survey:
    """Clips that a file gives, and its length in seconds."""

    clips: int
    seconds: float


def survey(path: str, cut: Cut) -> Survey | str:
    """What a file will give, or the reason why nothing.

    A rest of half a clip or more makes a clip of its own; so does any file that is shorter than one clip.
    """
    try:
        found = decode.probe(Path(path))
        codec = found.video_codec if cut.modality == "video" else found.audio_codec
        if codec is None:
            return f"no {cut.modality}"
        if codec in UNSUPPORTED:
            return f"codec {codec} is not supported"
        if cut.modality == "video":
            length = len(Video(Path(path), codec).at_rate(cut.rate))
        else:
            length = sum(len(piece) for piece in decode.sound(Path(path), round(cut.rate)))
    except MediaError as error:
        return str(error)
    return Survey(max(int(length / cut.length + 0.5), 1), length / cut.rate)


def read(path: str, cut: Cut, first: int, count: int) -> list[np.ndarray] | str:
    """Clips `first` to `first + count`: pictures (T, H, W, 3) uint8 or samples (S,) float32; or a reason.

    The last clip of a file holds its last picture, or goes silent, up to the full length.
    """
    try:
        if cut.modality == "audio":
            return _sounds(Path(path), cut, first, count)
        video = Video(Path(path))
        shown = video.at_rate(cut.rate)
        numbers = shown[np.minimum(np.arange(first * cut.length, (first + count) * cut.length), len(shown) - 1)]
        return [video.pictures(part) for part in numbers.reshape(count, cut.length)]
    except MediaError as error:
        return str(error)


def _sounds(path: Path, cut: Cut, first: int, count: int) -> list[np.ndarray]:
    begin, end = first * cut.length, (first + count) * cut.length
    samples = samples_between(path, round(cut.rate), begin, end)
    return list(np.pad(samples, (0, end - begin - len(samples))).reshape(count, cut.length))


def samples_between(path: Path, sample_rate: int, begin: int, end: int) -> np.ndarray:
    """Samples of a file's sound, mono at `sample_rate`; fewer where it ends before.

    Decodes from the start, since seeking is inexact in compressed sound, and keeps what was asked for.

    Raises:
        MediaError: the sound cannot be decoded.
    """
    position, kept = 0, []
    for piece in decode.sound(path, sample_rate):
        kept.append(piece[max(begin - position, 0) : max(end - position, 0)])
        position += len(piece)
        if position >= end:
            break
    return np.concatenate(kept)
