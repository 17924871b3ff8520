"""The seconds of a media file that encoders of both modalities are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xkd.data import decode
from xkd.data.decode import MediaFacts, Video
from xkd.data.opening import MediaError, faults_of
from xkd.data.padding import padded
from xkd.data.transcode import UNSUPPORTED
from xkd.data.windows import LIMITS, Cut, samples_between

Reader = Callable[[int], np.ndarray]  # of a cut that begins with this number


@dataclass(frozen=True)
class Cuttings:
    """One cut per modality, both from the same moment on.

    Attributes:
        clips: per modality pictures (T, H, W, 3) uint8 or samples (S,) float32, of the full length; a modality that
            cannot be read is not there.
        start: seconds of the file at which they begin.
        seconds: length of the file.
        notes: what a person should know: why a modality is missing, or what was filled up.
    """

    clips: dict[str, np.ndarray]
    start: float
    seconds: float
    notes: tuple[str, ...]


def read(path: str, cuts: dict[str, Cut], start: float | None) -> Cuttings | str:
    """Cuts the same moment out of the pictures and the sound of a file; or says why nothing can be read.

    A file that is too short is padded. Runs in a process of its own, since decoders of damaged files may hang or crash.

    Args:
        cuts: per modality that is wanted, how long and at which rate.
        start: seconds from the first picture; None: the middle, as evaluation does.
    """
    try:
        with faults_of(Path(path), LIMITS.memory_gb):
            found = decode.probe_file(Path(path), LIMITS)
    except MediaError as error:
        return str(error)
    readers, lengths, faults = {}, {}, {}
    for modality, cut in cuts.items():
        try:
            with faults_of(Path(path), LIMITS.memory_gb):
                readers[modality], lengths[modality] = _open(Path(path), found, cut)
        except MediaError as error:
            faults[modality] = str(error)
    if not readers:
        return "; ".join(faults.values())
    seconds = max(lengths.values())
    begin = _middle(cuts, lengths) if start is None else start
    if begin >= seconds:
        return f"starts at {begin:g} s, but lasts {seconds:.2f} s; give a smaller --start"
    clips, notes = {}, []
    for modality, reader in readers.items():
        cut = cuts[modality]
        try:
            with faults_of(Path(path), LIMITS.memory_gb):
                clip = reader(round(begin * cut.rate))
        except MediaError as error:
            faults[modality] = str(error)
            continue
        if len(clip) < cut.length:
            notes.append(_short(cut, len(clip)))
        clips[modality] = padded(clip, cut.length, modality, cut.pad)
    faults = {modality: faults[modality] for modality in cuts if modality in faults}
    if not clips:
        return "; ".join(faults.values())
    # The reason "no audio" says all; others are about a stream that is there.
    notes = [reason if reason == f"no {m}" else f"no {m}: {reason}" for m, reason in faults.items()] + notes
    return Cuttings(clips, begin, seconds, tuple(notes))


def _open(path: Path, found: MediaFacts, cut: Cut) -> tuple[Reader, float]:
    """What reads a cut from a number on, and the length of the stream in seconds."""
    if cut.modality == "audio":
        return _open_sound(path, found, cut)
    if found.video_codec is None:
        raise MediaError("no video")
    if found.video_codec in UNSUPPORTED:
        raise MediaError(f"codec {found.video_codec} is not supported")
    video = Video(path, LIMITS)
    shown = video.at_rate(cut.rate)

    def pictures(first: int) -> np.ndarray:
        # A start in the very last moment, or past the end of a stream that is shorter than the other, holds its last picture.
        return video.frames(shown[first : first + cut.length] if first < len(shown) else shown[-1:])

    return pictures, len(shown) / cut.rate


def _open_sound(path: Path, found: MediaFacts, cut: Cut) -> tuple[Reader, float]:
    if found.audio_codec is None:
        raise MediaError("no audio")
    rate = round(cut.rate)
    late = round(found.audio_delay * rate) if found.video_codec else 0

    def samples(first: int) -> np.ndarray:
        begin = first - late
        heard = samples_between(path, rate, max(begin, 0), max(begin + cut.length, 0))
        return np.pad(heard, (min(max(-begin, 0), cut.length), 0))

    if found.declared_seconds:
        return samples, found.declared_seconds
    return samples, sum(len(piece) for piece in decode.audio_pieces(path, rate, LIMITS)) / rate


def _middle(cuts: dict[str, Cut], lengths: dict[str, float]) -> float:
    """Start of the middle cut; where there are pictures, on their grid of times, as `xkd.data.views` has it."""
    modality = "video" if "video" in lengths else "audio"
    cut = cuts[modality]
    room = max(round(lengths[modality] * cut.rate) - cut.length, 0)
    return min((room + 1) // 2, room) / cut.rate


def _short(cut: Cut, length: int) -> str:
    there, wanted = length / cut.rate, cut.length / cut.rate
    held = "the last picture is held" if cut.modality == "video" else "the rest is silent"
    rest = "it starts again from the beginning" if cut.pad == "loop" else held
    return f"{cut.modality}: {there:.2f} s of a view of {wanted:.2f} s, {rest}"
