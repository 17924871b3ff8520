"""Mixes the sound of a clip: a recorded word in noise, between pieces of other words.

Levels are exact sums of whole numbers and square roots, so that the samples are the same on every machine.
"""

from __future__ import annotations

import numpy as np

from xkd.data.synthetic.draws import between
from xkd.data.synthetic.knobs import SAMPLES, SOUND, Sound

FULL_SCALE = 32767
SMOOTHED = 8  # samples whose mean is the low-pass filtered noise
STEPS = 2**15  # noise is drawn as whole numbers on each side of zero


def mix(word: np.ndarray, others: list[np.ndarray], rng: np.random.Generator, knobs: Sound = SOUND) -> np.ndarray:
    """Places a word (n,) int16 at a drawn level and moment of the second: samples (8000,) int16.

    Args:
        others: words, a piece of each of which is laid over the second at a drawn moment.
    """
    level = between(rng, *knobs.level) * FULL_SCALE
    mixed = _noise(rng, knobs) * (level * between(rng, *knobs.noise))
    start = int((SAMPLES - len(word)) * (0.5 + knobs.timing * between(rng, -0.5, 0.5)))
    mixed[start : start + len(word)] += word * (level / rms(word))
    for other in others:
        piece = _piece(other, rng, knobs)
        start = int(rng.integers(SAMPLES - len(piece) + 1))
        mixed[start : start + len(piece)] += piece * (level * between(rng, *knobs.fragment_level) / rms(piece))
    samples: np.ndarray = np.rint(np.clip(mixed, -FULL_SCALE, FULL_SCALE)).astype(np.int16)
    return samples


def rms(samples: np.ndarray) -> float:
    """Computes the level of whole numbers, exactly but for the root; at least 1."""
    power = int((samples.astype(np.int64) ** 2).sum())
    return max(float(np.sqrt(power / len(samples))), 1.0)


def _piece(word: np.ndarray, rng: np.random.Generator, knobs: Sound) -> np.ndarray:
    start = int(rng.integers(max(len(word) - knobs.fragment_samples, 0) + 1))
    return word[start : start + knobs.fragment_samples]


def _noise(rng: np.random.Generator, knobs: Sound) -> np.ndarray:
    """Draws noise of unit level, (samples,): white, and white that a moving mean filters."""
    white = rng.integers(-STEPS, STEPS + 1, SAMPLES)
    total = np.cumsum(rng.integers(-STEPS, STEPS + 1, SAMPLES + SMOOTHED))
    low = total[SMOOTHED:] - total[:-SMOOTHED]
    part = between(rng, 0, knobs.colour)
    both = white * (1 - part) + low * (part / np.sqrt(SMOOTHED))
    level = STEPS * np.sqrt(((1 - part) * (1 - part) + part * part) / 3)
    noise: np.ndarray = both / level
    return noise
