"""Small media files, sound and odd, for tests of `prepare`; and tasks for other processes."""

import os
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 16000


def write_media(
    path: Path,
    seconds: float = 1.0,
    fps: int = 25,
    size: tuple[int, int] = (96, 64),
    codec: str | None = "libx264",
    pixels: str = "yuv420p",
    audio: bool = True,
    brightest: int = 200,
    pitch: float = 500,
) -> Path:
    """Grey pictures that get brighter with time, and a tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=fps) if codec else None
        if video:
            (video.width, video.height), video.pix_fmt = size, pixels
        if audio:
            _write_tone(container, seconds, pitch)
        for number in range(round(seconds * fps) if video else 0):
            frame = av.VideoFrame.from_ndarray(_picture(number / fps / seconds, size, brightest), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(video.encode(frame.reformat(format=pixels)))
        if video:
            container.mux(video.encode(None))
    return path


def truncate(path: Path, part: float) -> Path:
    """Keeps the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    return path


def damage(path: Path) -> Path:
    """Overwrites the first pictures and sounds of an MP4, and leaves its headers."""
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start : start + 4000] = b"\xff" * 4000
    path.write_bytes(bytes(content))
    return path


def rotate(path: Path) -> Path:
    """Marks the video track of an MP4 as turned by 90 degrees, as a phone does."""
    content = path.read_bytes()
    upright = b"".join(value.to_bytes(4, "big") for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    turned = b"".join(
        value.to_bytes(4, "big", signed=True) for value in (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    )
    track = content.index(upright, content.index(b"tkhd"))
    path.write_bytes(content[:track] + turned + content[track + len(turned) :])
    return path


def crash_hang_or_double(number: int) -> int:
    """A task that ends its process, never returns, or works."""
    if number == 1:
        os._exit(7)
    if number == 2:
        time.sleep(1000)
    return 2 * number


def _picture(brightness: float, size: tuple[int, int], brightest: int) -> np.ndarray:
    return np.full((size[1], size[0], 3), round(40 + (brightest - 40) * brightness), np.uint8)


def _write_tone(container, seconds: float, pitch: float) -> None:
    stream = container.add_stream("pcm_s16le" if container.format.name == "wav" else "aac", rate=44100, layout="stereo")
    tone = 0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * 44100)) / 44100)
    samples = (np.repeat(tone, 2) * 32767).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
    frame.sample_rate = 44100
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
