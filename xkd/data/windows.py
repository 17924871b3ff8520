"""Any media file as consecutive clips of one length, whatever its own length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xkd.data import decode
from xkd.data.decode import Video
from xkd.data.opening import MediaError, faults_of
from xkd.data.padding import padded
from xkd.data.transcode import UNSUPPORTED
from xkd.settings import Limits

LIMITS = Limits()


@dataclass(frozen=True)
class Cut:
    """How a file is cut: `length` frames or samples a clip, at `rate` per second, of one modality; `pad` as in clips.pad."""

    modality: str
    length: int
    rate: float
    pad: str = "hold"


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
        with faults_of(Path(path), LIMITS.memory_gb):
            length = _length(Path(path), cut)
    except MediaError as error:
        return str(error)
    return Survey(max(int(length / cut.length + 0.5), 1), length / cut.rate)


def read(path: str, cut: Cut, first: int, count: int) -> list[np.ndarray] | str:
    """Clips `first` to `first + count`: frames (T, H, W, 3) uint8 or samples (S,) float32; or a reason.

    The last clip of a file is padded to the full length.
    """
    begins = range(first * cut.length, (first + count) * cut.length, cut.length)
    try:
        with faults_of(Path(path), LIMITS.memory_gb):
            if cut.modality == "audio":
                samples = samples_between(Path(path), round(cut.rate), begins.start, begins.stop)
                return [_padded(samples[begin - begins.start :], cut) for begin in begins]
            video = Video(Path(path), LIMITS)
            shown = video.at_rate(cut.rate)
            return [video.frames(_padded(shown[begin:], cut)) for begin in begins]
    except MediaError as error:
        return str(error)


def _length(path: Path, cut: Cut) -> int:
    """How many frames or samples a file gives."""
    found = decode.probe_file(path, LIMITS)
    codec = found.video_codec if cut.modality == "video" else found.audio_codec
    if codec is None:
        raise MediaError(f"no {cut.modality}")
    if codec in UNSUPPORTED:
        raise MediaError(f"codec {codec} is not supported")
    if cut.modality == "video":
        return len(Video(path, LIMITS).at_rate(cut.rate))
    return sum(len(piece) for piece in decode.audio_pieces(path, round(cut.rate), LIMITS))


def _padded(values: np.ndarray, cut: Cut) -> np.ndarray:
    if not len(values):
        raise MediaError("unreadable: changed while it was read")
    return padded(values[: cut.length], cut.length, cut.modality, cut.pad)


def samples_between(path: Path, sample_rate: int, begin: int, end: int) -> np.ndarray:
    """Samples of a file's sound, mono at `sample_rate`; fewer where it ends before.

    Decodes from the start, since seeking is inexact in compressed sound, and keeps what was asked for.

    Raises:
        MediaError: the sound cannot be decoded.
    """
    position, kept = 0, []
    for piece in decode.audio_pieces(path, sample_rate):
        kept.append(piece[max(begin - position, 0) : max(end - position, 0)])
        position += len(piece)
        if position >= end:
            break
    return np.concatenate(kept)
