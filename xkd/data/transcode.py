"""Turns one raw file into one training-ready clip, or finds the reason why it cannot be used."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xkd.data import decode, encode
from xkd.data.decode import MediaFacts, Video
from xkd.data.opening import MediaError, faults_of, unreadable
from xkd.data.reader import ClipReader
from xkd.files import sha256
from xkd.made import Made
from xkd.settings import Clips, Limits

NEEDS = {"both": ("video", "audio"), "video": ("video",), "audio": ("audio",), "any": ()}
# decord 0.6 ships decoders of 2021, which do not know these
UNSUPPORTED = frozenset({"av1", "vvc", "evc", "lcevc"})
SILENT = 10 ** (-60 / 20)  # peak: 30 steps of 16-bit sound, below the noise of any room


@dataclass(frozen=True)
class Form:
    """Describes files that `encode` writes and `ClipReader` reads exactly."""

    container: str
    video_codec: str
    pixel_format: str
    audio_codec: str


READY = {
    ".mp4": Form("mp4", "h264", "yuv420p", "aac"),
    ".mov": Form("mov", "rawvideo", encode.RAW_FORMAT, "pcm_s16le"),
}


@dataclass(frozen=True)
class Prepared:
    """Holds the manifest columns of a clip, and the decoded clip where it is to be packed."""

    facts: dict[str, Any]
    video: np.ndarray | None = None
    audio: np.ndarray | None = None


def prepare_clip(
    raw: str, out: str, files: Made, clips: Clips, require: str, pack: bool, limits: Limits | None = None
) -> Prepared:
    """Probes, decodes and, unless it is ready as it is, transcodes one file; then decodes the result.

    Args:
        raw: the raw file; never changed.
        out: path of the clip but for its end, a hash of the raw file: other content gives another clip, and a clip that
            was made from the same content is kept.
        files: the journal of clips.
        require: streams that a clip must have: both, video, audio or any.
        limits: of the raw file; by default, the default settings.

    Raises:
        OSError: an error of the machine, such as a full disk; any error of the file becomes a reason instead.
        UserError: a file that xkd did not make has the name of the clip.
    """
    source, limits = Path(raw), limits or Limits()
    try:
        with faults_of(source, limits.memory_gb):
            found = decode.probe_file(source, limits)
            check_streams(found, require)
            name = f"{out}-{_content(source)}"
            made = next((path for path in (Path(name + suffix) for suffix in READY) if files.has(path)), None)
            target = made or _make(source, name, files, found, clips, limits)
            if clips.silent == "drop" and found.audio_codec and require != "video":
                _check_heard(ClipReader(target))
            return _decoded(target, found, clips, limits, pack)
    except MediaError as error:
        return Prepared({"status": "unusable", "reason": str(error)})


def file_name(clip_id: str, path: str) -> str:
    """Returns the name of a clip without the hash of its content; another id or raw file gives another name."""
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", clip_id)[-60:]
    return f"{readable}-{hashlib.sha256(json.dumps([clip_id, path]).encode()).hexdigest()[:8]}"


def check_streams(found: MediaFacts, require: str) -> None:
    """Refuses a file without usable streams.

    Args:
        found: contents of the file.
        require: a key of `NEEDS`.

    Raises:
        MediaError: a codec that cannot be decoded, or a stream that is required and not there.
    """
    has = {"video": found.video_codec is not None, "audio": found.audio_codec is not None}
    if not any(has.values()):
        raise MediaError("unreadable: neither video nor audio")
    if found.video_codec in UNSUPPORTED:
        raise MediaError(f"codec {found.video_codec} is not supported")
    for modality in NEEDS[require]:
        if not has[modality]:
            raise MediaError(f"no {modality}")


def _content(source: Path) -> str:
    try:
        return sha256(source)[:16]
    except OSError as error:
        raise unreadable(error) from None


def _make(source: Path, name: str, files: Made, found: MediaFacts, clips: Clips, limits: Limits) -> Path:
    """Copies or transcodes a file; returns the clip, whose name without its end is `name`."""
    video = Video(source, limits) if found.video_codec else None
    ready = video is not None and _is_ready(source, video, found, clips)
    target = Path(name + (source.suffix if ready else ".mp4"))
    with files.writing(target) as temporary:
        if ready:
            shutil.copyfile(source, temporary)
        else:
            _write(source, video, temporary, found, clips, limits)
    return target


def _write(source: Path, video: Video | None, target: Path, found: MediaFacts, clips: Clips, limits: Limits) -> None:
    waveform = decode.read_audio(source, clips.sample_rate, limits) if found.audio_codec else None
    heard = found.audio_delay + len(waveform) / clips.sample_rate if waveform is not None else 0.0
    _check_complete(max(video.seconds if video else 0.0, heard), found.declared_seconds)
    if video and waveform is not None:
        waveform = _beside(video, waveform, round(found.audio_delay * clips.sample_rate), clips.sample_rate)
    size = _size(found, clips.size) if video else (0, 0)
    frames = video.chunks(video.at_rate(clips.fps)) if video else None
    encode.write_clip(target, frames, clips.fps, size, waveform, clips.sample_rate, encode.FOR_TRAINING)


def _check_complete(seconds: float, declared: float | None) -> None:
    """Checks a file's length against its headers, up to a tenth or half a second: headers round, or count subtitles."""
    if declared and declared - seconds > max(0.5, 0.1 * declared):
        raise MediaError(f"truncated: {seconds:.1f} s of {declared:.1f} s")


def _is_ready(source: Path, video: Video, found: MediaFacts, clips: Clips) -> bool:
    """Says whether the raw file already is what training reads: it is then copied."""
    form = READY.get(source.suffix)
    if form is None or form.container not in found.container:
        return False
    sound = (found.audio_codec, found.sample_rate, found.channels)
    return bool(
        sound in ((None,) * 3, (form.audio_codec, clips.sample_rate, 1))
        and (found.video_codec, found.pixel_format) == (form.video_codec, form.pixel_format)
        and min(found.size) == clips.size
        and abs(video.rate - clips.fps) < 1e-3
        and not found.rotated
        and abs(found.audio_delay) < 1e-3
    )


def _beside(video: Video, waveform: np.ndarray, delay: int, sample_rate: int) -> np.ndarray:
    """Cuts the audio to the time from the first frame to the end of the last; `delay` samples of silence come first."""
    samples = max(round(video.seconds * sample_rate), 1)
    if not -len(waveform) < delay < samples:
        raise MediaError(
            f"apart: sound from {delay / sample_rate:.2f} to {(delay + len(waveform)) / sample_rate:.2f} s, "
            f"but frames from 0 to {video.seconds:.2f} s"
        )
    return np.pad(waveform[: samples - delay], (delay, 0)) if delay > 0 else waveform[-delay : samples - delay]


def _size(found: MediaFacts, short: int) -> tuple[int, int]:
    """Returns width and height with the shorter side `short`; the longer side is rounded to an even number."""
    scale = short / min(found.size)
    width, height = (2 * round(side * scale / 2) for side in found.size)
    return max(width, short), max(height, short)


def _check_heard(reader: ClipReader) -> None:
    for part in reader.all_samples(None):
        if np.abs(part.astype(np.int32)).max(initial=0) >= SILENT * 32767:
            return
    raise MediaError("silent: no sample above -60 dBFS (clips.silent)")


def _decoded(target: Path, found: MediaFacts, clips: Clips, limits: Limits, pack: bool) -> Prepared:
    """Decodes the clip exactly as training will, a part at a time unless all of it is to be packed."""
    reader, frames, samples = ClipReader(target), 0, 0
    video = audio = None
    if found.video_codec:
        frames, video = _joined(reader.all_frames(), pack)
        seconds = frames / clips.fps
    if found.audio_codec:
        # The encoder fills its last block: read no more samples than there are frames, or than the encoder was given.
        most = round(seconds * clips.sample_rate) if video is not None else reader.declared_samples()
        samples, audio = _joined(reader.all_samples(most), pack)
        if not samples:
            raise MediaError("unreadable: no sound")
    if video is None:
        seconds = samples / clips.sample_rate
    decode.check_seconds(seconds - 1 / clips.fps, limits)  # the clip may have been made under other limits
    if seconds < clips.shortest:
        raise MediaError(f"too short: {seconds:.2f} s, at least {clips.shortest:g} (clips.shortest)")
    facts = {
        "seconds": round(seconds, 4),
        "fps": clips.fps if video is not None else None,
        "width": video.shape[2] if video is not None else None,
        "height": video.shape[1] if video is not None else None,
        "sample_rate": clips.sample_rate if audio is not None else None,
        "has_video": video is not None,
        "has_audio": audio is not None,
        "path": target.name,
        "digest": sha256(target)[:16],
        "status": "ok",
        "reason": "",
    }
    if not pack:
        return Prepared(facts)
    return Prepared(facts, video.transpose(0, 3, 1, 2) if video is not None else None, audio)


def _joined(parts: Iterator[np.ndarray], keep: bool) -> tuple[int, np.ndarray]:
    """Returns the length of all parts together, and their content: all of it if `keep`, else that of the last part."""
    length, kept = 0, deque[np.ndarray](maxlen=None if keep else 1)
    for part in parts:
        length += len(part)
        kept.append(part)
    return length, kept[0] if len(kept) == 1 else np.concatenate(kept)
