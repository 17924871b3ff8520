"""Probes media files and decodes their frames and audio to arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np
from av.container import InputContainer
from av.stream import Disposition, Stream

from xkd.data.opening import MediaError, open_decord, open_media, unreadable
from xkd.settings import Limits

PADDED = "from_size == to_size"  # error of decord 0.6 about narrow frames whose rows are padded
MOST_PLANES = 7  # of audio: PyAV 18 crashes on more
CHUNK_PIXELS = 64_000_000  # decoded at a time, so that long videos fit in memory


@dataclass(frozen=True)
class MediaFacts:
    """Describes the streams of a file. Absent streams have codec None.

    Attributes:
        width, height: of the frames as they are shown, after rotation.
        audio_delay: seconds from the first frame to the start of the audio.
        declared_seconds: length of the file as its headers say; None where they do not.
    """

    container: str
    video_codec: str | None = None
    pixel_format: str | None = None
    width: int | None = None
    height: int | None = None
    rotated: bool = False
    audio_codec: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    audio_delay: float = 0.0
    declared_seconds: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Returns width and height, 0 without video."""
        return self.width or 0, self.height or 0


def probe_file(path: Path, limits: Limits) -> MediaFacts:
    """Reads the headers of a file, and the first frame to learn its rotation.

    Raises:
        MediaError: not a media file, shorter than its headers say, or outside the limits.
    """
    try:
        with open_media(path) as container:
            _check_riff(path)
            video, audio = best_video(container), best_audio(container)
            found: dict[str, Any] = {
                "container": container.format.name,
                "declared_seconds": _declared(container, video),
            }
            if video is not None and video.codec_context is not None:
                found |= _video_facts(container, video)
            if audio is not None and audio.codec_context is not None:
                found |= {
                    "audio_codec": audio.codec_context.codec.canonical_name,
                    "sample_rate": audio.codec_context.sample_rate,
                    "channels": audio.codec_context.layout.nb_channels,
                }
            if video is not None and audio is not None:
                found["audio_delay"] = _start(audio) - _start(video)
    except av.FFmpegError as error:
        raise unreadable(error) from None
    _check_limits(MediaFacts(**found), limits)
    return MediaFacts(**found)


def best_video(container: InputContainer) -> av.VideoStream | None:
    """Returns the video stream that a player would show; the cover of an album does not count."""
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:
        return None
    return stream


def best_audio(container: InputContainer) -> av.AudioStream | None:
    """Returns the audio stream that a player would play."""
    stream = container.streams.best("audio")
    return stream if isinstance(stream, av.AudioStream) else None


class Video:
    """Decodes the frames of a file with decord.

    Raises:
        MediaError: decord cannot open or decode it.
    """

    def __init__(self, source: Path | bytes, limits: Limits | None = None):
        self._reader = open_decord(source)
        if len(self._reader) == 0:
            raise MediaError("unreadable: no pictures")
        self.rate = float(self._reader.get_avg_fps())
        if limits:
            _check_between(self.rate, limits.fps, "frames per second", "fps")
        self.starts = _starts(self._reader)
        self.seconds = float(self.starts[-1] + 1 / self.rate)
        if limits:
            check_seconds(self.seconds, limits)
            still = float(np.diff(self.starts, append=self.seconds).max())
            _at_most(still, limits.still, "s for which one frame stays", "still")

    def __len__(self) -> int:
        return len(self._reader)

    def at_rate(self, fps: float) -> np.ndarray:
        """Returns the numbers of the frames shown at 0, 1 / fps, 2 / fps, ... seconds."""
        times = np.arange(max(round(self.seconds * fps), 1)) / fps
        shown = np.searchsorted(self.starts, times + 0.5 / (self.rate * 100), side="right") - 1
        return np.clip(shown, 0, len(self) - 1)

    def frames(self, numbers: np.ndarray) -> np.ndarray:
        """Decodes frames (T, H, W, 3) uint8 by number."""
        try:
            try:
                batch: np.ndarray = self._reader.get_batch(numbers).asnumpy()
                return batch
            except decord.DECORDError as error:
                if PADDED not in str(error):
                    raise
                return np.stack([_without_padding(self._reader[int(number)].asnumpy()) for number in numbers])
        except decord.DECORDError as error:
            raise unreadable(error, "damaged video") from None

    def chunks(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Yields frames (H, W, 3) uint8 by number, decoded a few at a time."""
        height, width = self.frames(numbers[:1]).shape[1:3]
        step = max(CHUNK_PIXELS // (height * width), 1)
        for first in range(0, len(numbers), step):
            yield from self.frames(numbers[first : first + step])


def read_audio(path: Path, sample_rate: int, limits: Limits | None = None) -> np.ndarray:
    """Reads the audio of a file as mono (samples,) float32 in [-1, 1] at `sample_rate`.

    Raises:
        MediaError: the audio cannot be decoded.
    """
    return np.concatenate(list(audio_pieces(path, sample_rate, limits)))


def audio_pieces(path: Path, sample_rate: int, limits: Limits | None = None) -> Iterator[np.ndarray]:
    """Yields the audio of a file as `read_audio` returns it, in pieces as the decoder gives them.

    PyAV and not decord: decord's AudioReader keeps the memory of every file it opened.
    """
    samples = 0
    try:
        with open_media(path) as container:
            stream = best_audio(container)
            if stream is None:
                raise MediaError("unreadable: no sound")
            codec = stream.codec_context
            wanted = "fltp" if codec.layout.nb_channels <= MOST_PLANES else "flt"
            frames = container.decode(stream)
            if (codec.sample_rate, codec.format.name) != (sample_rate, wanted):
                frames = _resampled(frames, av.AudioResampler(format=wanted, rate=sample_rate))
            for frame in frames:
                samples += frame.samples
                if limits:
                    check_seconds(samples / sample_rate, limits)
                values = finite(frame.to_ndarray())
                if wanted == "flt":
                    values = values.reshape(frame.samples, -1).T
                yield np.clip(values.mean(axis=0), -1, 1)
    except av.FFmpegError as error:
        raise unreadable(error, "damaged audio") from None
    if not samples:
        raise MediaError("unreadable: no sound")


def check_seconds(seconds: float, limits: Limits) -> None:
    """Raises a MediaError where a file is longer than the limits allow."""
    if seconds > limits.seconds:
        raise MediaError(f"out of limits: longer than {limits.seconds:g} s (limits.seconds)")


def finite(samples: np.ndarray) -> np.ndarray:
    """Returns the samples, if all of them are finite.

    Raises:
        MediaError: one of them is not.
    """
    if not np.isfinite(samples).all():
        raise MediaError("unreadable: the sound holds NaN or infinity")
    return samples


def _resampled(frames: Iterable[av.AudioFrame], resampler: av.AudioResampler) -> Iterator[av.AudioFrame]:
    for frame in frames:
        frame.pts = None  # gaps in time stamps are not filled
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


def _video_facts(container: InputContainer, stream: av.VideoStream) -> dict[str, Any]:
    codec = stream.codec_context
    frame = next(container.decode(stream), None)
    if frame is None:
        raise MediaError("unreadable: no pictures")
    turned = frame.rotation % 180 != 0
    size = (frame.height, frame.width) if turned else (frame.width, frame.height)
    return {
        "video_codec": codec.codec.canonical_name,
        "pixel_format": codec.pix_fmt,
        "width": size[0],
        "height": size[1],
        "rotated": frame.rotation != 0,
    }


def _declared(container: InputContainer, video: av.VideoStream | None) -> float | None:
    """Returns the length in the headers: by the count of frames if given, as FFmpeg corrects a cut AVI's duration."""
    if video is not None and video.frames and video.average_rate:
        return float(video.frames / video.average_rate)
    if not container.duration:
        return None
    # Matroska counts from 0 to the end, others from the first frame.
    before = max(container.start_time or 0, 0) if "matroska" in container.format.name else 0
    return (container.duration - before) / av.time_base


def _check_riff(path: Path) -> None:
    """Checks the length with which WAV and AVI start; FFmpeg plays a truncated one without an error."""
    with path.open("rb") as file:
        head = file.read(8)
    declared = int.from_bytes(head[4:], "little") + 8
    size = path.stat().st_size
    if head[:4] == b"RIFF" and declared < 0xFFFFFFF0 and size < declared - 1:
        raise MediaError(f"truncated: {size} of {declared} bytes")


def _check_limits(found: MediaFacts, limits: Limits) -> None:
    short_side, long_side = sorted(found.size)
    _at_most(long_side, limits.side, "pixels", "side")
    _at_most(long_side / max(short_side, 1), limits.aspect, "times longer than wide", "aspect")
    _at_most(abs(found.audio_delay), limits.apart, "s between the starts of sound and frames", "apart")
    if found.sample_rate:
        _check_between(found.sample_rate, limits.sample_rate, "samples per second", "sample_rate")


def _at_most(value: float, most: float, unit: str, key: str) -> None:
    if value > most:
        raise MediaError(f"out of limits: {value:.5g} {unit}, at most {most:g} (limits.{key})")


def _check_between(value: float, bounds: tuple[float, float], unit: str, key: str) -> None:
    if not bounds[0] <= value <= bounds[1]:
        raise MediaError(f"out of limits: {value:.5g} {unit}, not {bounds[0]:g} to {bounds[1]:g} (limits.{key})")


def _start(stream: Stream) -> float:
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)


def _starts(reader: decord.VideoReader) -> np.ndarray:
    """Returns when each frame appears, from 0 s; evenly spaced where the file does not say or makes no sense."""
    starts: np.ndarray = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(float)
    starts -= starts[0]
    even = np.arange(len(starts)) / reader.get_avg_fps()
    sensible = np.all(np.diff(starts) >= 0) and abs(starts[-1] - even[-1]) < 1 + 0.5 * even[-1]
    return starts if sensible else even


def _without_padding(frame: np.ndarray) -> np.ndarray:
    """Undoes a quirk of decord 0.6: rows of some narrow frames come with their padding as channels."""
    height, width, _ = frame.shape
    return frame.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)
