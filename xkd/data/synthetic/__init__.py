"""Renders the clips of the generated data sets `talking_digits` and `spoken_digits`.

A clip depends on (split, index, seed) and the archive of recordings alone. Frames and audio share the digit and nothing
else: each modality draws its nuisances from its own stream of random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import fft

from xkd.data.synthetic import recordings, scene, voice
from xkd.data.synthetic.knobs import SAMPLES, SOUND, Sound
from xkd.data.synthetic.words import DIGIT_NAMES

Choice = TypeVar("Choice")
SPLIT_SEEDS = {"train": 0, "test": 1}
_FRAMES, _AUDIO, _ORDER = range(3)


@dataclass(frozen=True)
class Rendered:
    """Holds one clip before encoding: frames (8, 32, 32, 3) uint8, waveform (16000,) float32 in [-1, 1]."""

    frames: np.ndarray
    waveform: np.ndarray
    label: str
    video_source: str
    audio_source: str


def render(split: str, index: int, seed: int, archive: str | None = None) -> Rendered:
    """Renders clip `index` of a split; digits take turns, so that any number of clips is balanced.

    Args:
        split: train or test.
        archive: path of the zip of the Free Spoken Digit Dataset, for recorded voices; None: a synthesised voice.
    """
    digit, turn = index % 10, index // 10
    stream = [np.random.default_rng([seed, SPLIT_SEEDS[split], index, part]) for part in (_FRAMES, _AUDIO)]
    scan = _take_turns(scene.scans_of(split, digit, seed).tolist(), turn)
    frames = scene.draw_frames(scene.scans()[0][scan], stream[_FRAMES])
    if archive:
        opened = recordings.open_recordings(archive)
        name = _take_turns(_shuffled(opened.names(split, digit), seed, digit), turn)
        word, source = opened.word(name), name.rsplit("/", 1)[-1].removesuffix(".wav")
    else:
        speaker = _choose(voice.speakers(split, seed), stream[_AUDIO])
        word, source = voice.speak(digit, speaker, stream[_AUDIO]), speaker.name
    return Rendered(frames, _place(word, stream[_AUDIO]), DIGIT_NAMES[digit], f"scan{scan:04d}", source)


def _place(word: np.ndarray, rng: np.random.Generator, knobs: Sound = SOUND) -> np.ndarray:
    """Places the word at a drawn level and moment of the second, over background noise."""
    level = 10 ** (rng.uniform(*knobs.loudness_db) / 20)
    word = word * (level / (np.sqrt(np.mean(np.square(word))) + 1e-9))
    start = round((SAMPLES - len(word)) * (0.5 + knobs.timing * rng.uniform(-0.5, 0.5)))
    waveform = _noise(rng, knobs) * (level * 10 ** (rng.uniform(*knobs.noise_db) / 20))
    waveform[start : start + len(word)] += word
    return np.clip(waveform, -1, 1).astype(np.float32)


def _noise(rng: np.random.Generator, knobs: Sound) -> np.ndarray:
    """Draws noise of unit level whose spectrum falls with frequency, (samples,)."""
    spectrum = fft.rfft(rng.standard_normal(SAMPLES, dtype=np.float32))
    spectrum *= np.arange(1, len(spectrum) + 1, dtype=np.float32) ** (-rng.uniform(*knobs.noise_tilt) / 2)
    noise: np.ndarray = fft.irfft(spectrum, SAMPLES)
    noise /= noise.std()
    return noise


def _shuffled(names: list[str], seed: int, digit: int) -> list[str]:
    order = np.random.default_rng([seed, _ORDER, digit]).permutation(len(names))
    return [names[i] for i in order]


def _take_turns(items: Sequence[Choice], turn: int) -> Choice:
    return items[turn % len(items)]


def _choose(items: Sequence[Choice], rng: np.random.Generator) -> Choice:
    return items[int(rng.integers(len(items)))]
