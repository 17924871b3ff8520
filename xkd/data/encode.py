"""Writes training-ready media files: H.264 and AAC in MP4, or raw frames and PCM in QuickTime.

The former are the same bytes for the same input on one machine, the latter on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import VideoReformatter

from xkd.files import replacing

VIDEO_OPTIONS = {
    "preset": "veryfast",
    "crf": "14",
    "g": "16",
    "bf": "0",
    "threads": "1",
    # with mbtree, small frames are, rarely, encoded to other bytes in another run
    "x264-params": "mbtree=0:rc-lookahead=0",
}
# Clips are read many times, at random places: half the time to decode for a twentieth more bytes; every eighth frame is
# a key frame.
FOR_TRAINING = VIDEO_OPTIONS | {"tune": "fastdecode", "crf": "16", "g": "8"}
AUDIO_OPTIONS = {"aac_coder": "fast"}
AUDIO_BIT_RATE = 96_000
RAW_FORMAT = "rgb24"
REPEATABLE = {"fflags": "+bitexact"}  # neither versions of libraries nor random numbers in the headers


def write_clip(
    path: Path,
    frames: Iterable[np.ndarray] | None,
    fps: float,
    size: tuple[int, int],
    waveform: np.ndarray | None,
    sample_rate: int,
    options: dict[str, str] = VIDEO_OPTIONS,
) -> None:
    """Writes one clip; the file appears whole or not at all.

    Args:
        frames: each (H, W, 3), uint8 RGB, scaled to `size` here; None: no video stream.
        size: width and height in pixels, both even.
        waveform: (samples,) float in [-1, 1], mono; None: no audio stream.
        options: of the H.264 encoder.
    """
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        video = _add_video(container, fps, size, options) if frames is not None else None
        if waveform is not None:
            _write_audio(container, waveform, sample_rate)
        if video is not None and frames is not None:
            _write_video(container, video, frames, size)


def write_raw(path: Path, frames: np.ndarray, fps: float, samples: np.ndarray, sample_rate: int) -> None:
    """Writes one clip without compression; the file appears whole or not at all.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        samples: (n,) int16, mono.
    """
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format="mov", container_options=REPEATABLE) as container,
    ):
        video = container.add_stream("rawvideo", rate=Fraction(fps).limit_denominator(1001))
        audio = container.add_stream("pcm_s16le", rate=sample_rate, layout="mono")
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = RAW_FORMAT
        sound = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        sound.sample_rate, sound.pts = sample_rate, 0
        container.mux(audio.encode(sound))
        _write_video(container, video, frames, frames.shape[2:0:-1])


def _add_video(
    container: OutputContainer, fps: float, size: tuple[int, int], options: dict[str, str]
) -> av.VideoStream:
    stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    return stream


def _write_video(
    container: OutputContainer, stream: av.VideoStream, frames: Iterable[np.ndarray], size: tuple[int, int]
) -> None:
    scaler = VideoReformatter()  # one for all frames: setting up a filter costs more than scaling a small frame
    for number, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = scaler.reformat(frame, *size, format=stream.pix_fmt, interpolation="BICUBIC")
        frame.pts, frame.time_base = number, 1 / stream.codec_context.framerate
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _write_audio(container: OutputContainer, waveform: np.ndarray, sample_rate: int) -> None:
    stream = container.add_stream("aac", rate=sample_rate, layout="mono", options=AUDIO_OPTIONS)
    stream.bit_rate = AUDIO_BIT_RATE
    samples = np.ascontiguousarray(waveform, dtype=np.float32)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = sample_rate, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
