"""Reads the same seconds of every modality of a media file, for encoders to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xkd.data import decode
from xkd.data.opening import MediaError, faults_of
from xkd.data.tracks import FILE_LIMITS, TRACKS, Track
from xkd.data.windows import Window
from xkd.modalities import MODALITIES


@dataclass(frozen=True)
class Moment:
    """One clip per modality, all from the same moment on.

    Attributes:
        clips: per modality frames (T, H, W, 3) uint8 or samples (S,) float32, of the full length; a modality that
            cannot be read is not there.
        start: seconds of the file at which they begin.
        seconds: length of the file.
        notes: what a person should know: why a modality is missing, or what was filled up.
    """

    clips: dict[str, np.ndarray]
    start: float
    seconds: float
    notes: tuple[str, ...]


def read_moment(path: str, windows: dict[str, Window], start: float | None) -> Moment | str:
    """Cuts the same moment out of each track of a file; or returns the reason why nothing can be read.

    A file that is too short is padded. Runs in a process of its own, since decoders of damaged files may hang or crash.

    Args:
        windows: per modality that is wanted, how long and at which rate.
        start: seconds from the first frame; None: the middle, as evaluation does.
    """
    file = Path(path)
    try:
        with faults_of(file, FILE_LIMITS.memory_gb):
            found = decode.probe_file(file, FILE_LIMITS)
    except MediaError as error:
        return str(error)
    tracks: dict[str, tuple[Track, float]] = {}
    faults: dict[str, str] = {}
    for modality, window in windows.items():
        try:
            with faults_of(file, FILE_LIMITS.memory_gb):
                track = TRACKS[modality](file, window.rate, found, together=True)
                tracks[modality] = track, track.seconds
        except MediaError as error:
            faults[modality] = str(error)
    if not tracks:
        return "; ".join(faults.values())
    seconds = max(length for _, length in tracks.values())
    begin = _middle(windows, {m: length for m, (_, length) in tracks.items()}) if start is None else start
    if begin >= seconds:
        return f"starts at {begin:g} s, but lasts {seconds:.2f} s; give a smaller --start"
    clips, short = {}, []
    for modality, (track, _) in tracks.items():
        window = windows[modality]
        try:
            with faults_of(file, FILE_LIMITS.memory_gb):
                clip = track.part(round(begin * window.rate), window.length, hold=True)
        except MediaError as error:
            faults[modality] = str(error)
            continue
        if len(clip) < window.length:
            short.append(_short(window, len(clip)))
        clips[modality] = MODALITIES[modality].padded(clip, window.length, window.pad)
    faults = {modality: faults[modality] for modality in windows if modality in faults}
    if not clips:
        return "; ".join(faults.values())
    # The reason "no audio" says all; others are about a stream that is there.
    missing = [reason if reason == f"no {m}" else f"no {m}: {reason}" for m, reason in faults.items()]
    return Moment(clips, begin, seconds, (*missing, *short))


def _middle(windows: dict[str, Window], lengths: dict[str, float]) -> float:
    """Computes the middle clip's start; where there are frames, on their grid of times, as `xkd.data.views` has it."""
    modality = next(m for m in MODALITIES if m in lengths)
    window = windows[modality]
    room = max(round(lengths[modality] * window.rate) - window.length, 0)
    return min((room + 1) // 2, room) / window.rate


def _short(window: Window, length: int) -> str:
    there, wanted = length / window.rate, window.length / window.rate
    rest = "it starts again from the beginning" if window.pad == "loop" else MODALITIES[window.modality].filled
    return f"{window.modality}: {there:.2f} s of a view of {wanted:.2f} s, {rest}"
