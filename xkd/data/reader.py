"""Cuts of one training-ready clip, read from a file that is opened once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.frame import Frame
from av.video.reformatter import VideoReformatter

from xkd.data.decode import CHUNK_PIXELS, Video, best_audio, best_video, finite
from xkd.data.opening import MediaError, open_media, unreadable
from xkd.modalities.video import frames_between

AAC_FRAME = 1024  # samples
CHUNK_SAMPLES = 2**23
UNSPECIFIED = 2  # the colour space of files that `encode` wrote; decord reads those of others in its own way


class ClipReader:
    """Reads frames and samples of a clip by number; the same values however it is cut.

    Frames of files that `encode` wrote are found by their time stamps, which are exact, and decoded by PyAV: the
    values are those of decord, in two thirds of its time. Files of other makers are left to decord.

    Args:
        source: the file, or its content.

    Raises:
        MediaError: by every method, that the file cannot be opened or decoded.
    """

    _seen: bool
    _heard: bool

    def __init__(self, source: Path | bytes):
        self.source = source
        self._scaler = VideoReformatter()
        self._other: Video | None = None
        self._open()

    def frames(self, first: int = 0, count: int | None = None) -> np.ndarray:
        """Reads frames (T, H, W, 3) uint8, `count` from number `first` on; at least the last one."""
        exact = self._exact()
        length = exact[0].frames if exact else 0
        wanted = frames_between(first, count, length)
        found = self._decoded(*exact, wanted) if exact and length else None
        if found is not None:
            return found
        video = self._by_decord()
        return video.frames(np.array(frames_between(first, count, len(video))))

    def all_frames(self) -> Iterator[np.ndarray]:
        """Reads all frames, some at a time, so that long clips fit in memory."""
        exact = self._exact()
        length = (exact[0].frames if exact else 0) or len(self._by_decord())
        pixels = self._video.width * self._video.height if self._video else 0
        step = max(CHUNK_PIXELS // max(pixels, 1), 1)
        for first in range(0, length, step):
            yield self.frames(first, step)

    def all_samples(self, most: int | None) -> Iterator[np.ndarray]:
        """Reads all samples, or the first `most` of them, some at a time."""
        first, wanted = 0, 0
        while first == wanted and (most is None or first < most):
            wanted = first + CHUNK_SAMPLES if most is None else min(first + CHUNK_SAMPLES, most)
            part = self.samples(first, wanted - first)
            yield part
            first += len(part)

    def declared_samples(self) -> int | None:
        """Returns how many samples the file declares, without those that fill the encoder's last block."""
        stream = best_audio(self._container)
        if stream is None or stream.duration is None or stream.time_base is None:
            return None
        return max(round(stream.duration * stream.time_base * stream.rate), 1)

    def samples(self, first: int, count: int) -> np.ndarray:
        """Reads audio (samples,) int16: at most `count` samples from number `first` on; decodes nothing before them.

        A frame of AAC overlaps with the one before only; the first one needs what comes before it in the file, which
        seeking skips. A decoder that is used again remembers more than that, so each cut gets a new one.
        """
        within = first >= 2 * AAC_FRAME
        if self._heard and not within:
            self._open()
        pieces = []
        try:
            stream = best_audio(self._container)
            if stream is None:
                raise MediaError("unreadable: no sound")
            if within or self._seen:
                self._container.seek(first - 2 * AAC_FRAME, stream=stream)
            self._seen, self._heard = True, self._heard or not within
            for frame in self._afresh(stream) if within else self._container.decode(stream):
                begin = _time(frame)
                if begin >= first + count:
                    break
                if begin + frame.samples > first:
                    decoded: np.ndarray = frame.to_ndarray()
                    pieces.append(decoded[0, max(first - begin, 0) : first + count - begin])
        except av.FFmpegError as error:
            raise unreadable(error, "damaged audio") from None
        samples: np.ndarray = np.concatenate(pieces) if pieces else np.empty(0, np.int16)
        if samples.dtype != np.int16:
            samples = np.rint(np.clip(finite(samples), -1, 1) * 32767).astype(np.int16)
        return samples

    def _afresh(self, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
        """Decodes from the present place on by a new decoder, without opening the file again.

        Not for the beginning of a file: only the file's own decoder knows how many samples to skip there.
        """
        decoder = av.CodecContext.create(stream.codec_context.codec, "r")
        assert isinstance(decoder, av.AudioCodecContext)
        decoder.extradata = stream.codec_context.extradata
        decoder.sample_rate, decoder.layout = stream.codec_context.sample_rate, stream.codec_context.layout
        for packet in self._container.demux(stream):
            yield from decoder.decode(packet)

    def _open(self) -> None:
        self._container = open_media(self.source)
        self._video = best_video(self._container)
        if self._video is not None and self._video.codec_context is not None:
            self._video.codec_context.thread_count = 1
        self._seen = self._heard = False

    def _exact(self) -> tuple[av.VideoStream, Fraction] | None:
        """Returns the video stream that `encode` wrote and its frames per tick; None for those of others."""
        stream = self._video
        if stream is None or stream.codec_context is None or stream.start_time != 0 or not stream.average_rate:
            return None
        codec = stream.codec_context
        ours = codec.name == "rawvideo" or (codec.name == "h264" and codec.colorspace == UNSPECIFIED)
        if not ours or codec.has_b_frames or not stream.time_base:
            return None
        return stream, stream.time_base * stream.average_rate

    def _decoded(self, stream: av.VideoStream, per_tick: Fraction, wanted: range) -> np.ndarray | None:
        """Decodes frames, from the key frame at or before the first; None where their time stamps leave one out."""
        self._seen = True
        size = stream.height, stream.width
        frames = np.empty((len(wanted), *size, 3), np.uint8)
        try:
            self._container.seek(int(wanted.start / per_tick), stream=stream)
            done = 0
            for frame in self._container.decode(stream):
                number, rest = divmod(_time(frame) * per_tick.numerator, per_tick.denominator)
                if number < wanted.start:
                    continue
                if rest or number != wanted[done] or (frame.height, frame.width) != size:
                    return None
                frames[done] = self._scaler.reformat(frame, format="rgb24").to_ndarray()
                done += 1
                if done == len(wanted):
                    return frames
        except av.FFmpegError as error:
            raise unreadable(error, "damaged video") from None
        return None

    def _by_decord(self) -> Video:
        if self._other is None:
            self._other = Video(self.source)
        return self._other


def _time(frame: Frame) -> int:
    """Returns when a frame begins, in ticks of its stream."""
    if frame.pts is None:
        raise MediaError("unreadable: no time stamps")
    return frame.pts
