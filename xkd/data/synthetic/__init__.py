"""Renders the clips of the embedded data set `talking_digits`: real handwriting and real recordings.

A clip depends on (split, index, seed, paired) alone and is the same on every machine. Frames and sound share the digit,
if they are paired, and nothing else: each modality draws its nuisances from its own stream of random numbers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from xkd.data.synthetic import recordings, scene, sound
from xkd.data.synthetic.draws import choose, shuffled
from xkd.data.synthetic.knobs import PICTURE, SOUND

SPLIT_SEEDS = {"train": 0, "test": 1}
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGEST = "2f1f36c6da47"  # of `digest`, on every machine
_FRAMES, _AUDIO, _ORDER = range(3)


@dataclass(frozen=True)
class Rendered:
    """Holds one clip before encoding.

    Attributes:
        frames: (8, 32, 32, 3) uint8.
        samples: (8000,) int16.
        cover: how much of each pixel the digit covers, (8, 32, 32) in [0, 1].
    """

    frames: np.ndarray
    samples: np.ndarray
    cover: np.ndarray
    label: str
    video_source: str
    audio_source: str


def render(split: str, index: int, seed: int, paired: bool = True) -> Rendered:
    """Renders clip `index` of a split; digits take turns, so that any number of clips is balanced.

    Args:
        split: train or test.
        paired: False: the sound is that of another digit, drawn for each clip; the label is that of the picture.
    """
    turn, digit = divmod(index, 10)
    video, audio = (np.random.default_rng([seed, SPLIT_SEEDS[split], index, part]) for part in (_FRAMES, _AUDIO))
    images, numbers = scene.scans()[0], scene.scans_of(split, digit, seed)
    number = int(numbers[turn % len(numbers)])
    others = [images[_another_scan(split, digit, seed, video)] for _ in range(PICTURE.fragments)]
    frames, cover = scene.draw(images[number], others, video)
    spoken = digit if paired else _another_digit(digit, audio)
    name, words = _in_turn(split, spoken, seed, turn), recordings.words()
    pieces = [words[_another_word(split, spoken, audio)] for _ in range(SOUND.fragments)]
    return Rendered(frames, sound.mix(words[name], pieces, audio), cover, DIGIT_NAMES[digit], f"scan{number:04d}", name)


def digest() -> str:
    """Returns a short hash of some clips as this machine renders them: `DIGEST`, unless its arithmetic differs."""
    clips = [render(split, index, seed=0) for split in SPLIT_SEEDS for index in range(20)]
    content = b"".join(clip.frames.tobytes() + clip.samples.tobytes() for clip in clips)
    return hashlib.sha256(content).hexdigest()[:12]


def _another_digit(digit: int, rng: np.random.Generator) -> int:
    return (digit + int(rng.integers(1, 10))) % 10


def _another_scan(split: str, digit: int, seed: int, rng: np.random.Generator) -> int:
    others: list[int] = scene.scans_of(split, _another_digit(digit, rng), seed).tolist()
    return choose(rng, others)


def _another_word(split: str, digit: int, rng: np.random.Generator) -> str:
    return choose(rng, recordings.names(split, _another_digit(digit, rng)))


def _in_turn(split: str, digit: int, seed: int, turn: int) -> str:
    names = shuffled(np.random.default_rng([seed, _ORDER, digit]), recordings.names(split, digit))
    return names[turn % len(names)]
