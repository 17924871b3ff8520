"""Films that cost about as much to decode as those of Kinetics: a camera moves over photographs, in front of noise."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

FPS, RATE = 30, 44100


def write_film(path: Path, seed: int, seconds: int = 10, size: tuple[int, int] = (480, 270)) -> None:
    """H.264 of 500 to 600 kbit/s at 480 x 270 pixels with one cut, and stereo AAC."""
    random = np.random.default_rng(seed)
    photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    phases = random.uniform(0, 2 * np.pi, 3)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "medium", "crf": "23"})
        (video.width, video.height), video.pix_fmt = size, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="stereo")
        for number in range(seconds * FPS):
            photograph = photographs[(seed + (number > 0.6 * seconds * FPS)) % 2]
            picture = _seen(photograph, number / FPS, phases, size) + random.normal(0, 2, (size[1], size[0], 1))
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = (random.standard_normal((2, RATE * seconds)) * 0.1).astype(np.float32)
        sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        sound.sample_rate, sound.pts = RATE, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def _seen(photograph: Image.Image, time: float, phases: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A part of the photograph that drifts and changes its size."""
    near, right, down = 0.5 + 0.5 * np.sin(time * np.array([0.9, 0.7, 0.8]) + phases)
    width = (0.35 + 0.4 * near) * photograph.width
    height = width * size[1] / size[0]
    left, top = right * (photograph.width - width), down * (photograph.height - height)
    part = photograph.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    return np.asarray(part, dtype=np.float32)
