"""Synthesises a voice: glottal pulses and noise pass through moving formants.

The vocal tract is a cascade of resonators. Its response multiplies the short-time spectra of the sources, so that a
whole word is filtered at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from scipy import fft

from xkd.data.synthetic.knobs import SAMPLE_RATE, SAMPLES, VOICE, Voice
from xkd.data.synthetic.words import WORDS, Target

HOP, WINDOW = 128, 512
BANDWIDTHS = np.array([80.0, 100.0, 140.0, 220.0])
OPEN_PHASE = 0.65  # part of a pitch period in which the glottis is open


@dataclass(frozen=True)
class Speaker:
    """Holds what stays the same from word to word."""

    name: str
    pitch: float
    formants: np.ndarray  # scale of F1 to F4
    seconds: float  # of an average word
    breath: float
    fall: float


@cache
def speakers(split: str, seed: int, knobs: Voice = VOICE) -> tuple[Speaker, ...]:
    """Returns the speakers of a split; nobody is in both splits."""
    numbers = range(knobs.train_speakers + knobs.test_speakers)
    chosen = numbers[: knobs.train_speakers] if split == "train" else numbers[knobs.train_speakers :]
    return tuple(_speaker(number, seed, knobs) for number in chosen)


def speak(digit: int, speaker: Speaker, rng: np.random.Generator, knobs: Voice = VOICE) -> np.ndarray:
    """Synthesises one utterance of a digit, (samples,) float, at any level and at most one second long."""
    targets = WORDS[digit]
    lengths = np.array([t.length for t in targets]) * np.exp(rng.normal(0, knobs.duration_spread, len(targets)))
    average = np.mean([sum(t.length for t in word) for word in WORDS])
    seconds = speaker.seconds * (0.6 + 0.4 * lengths.sum() / average) * np.exp(rng.normal(0, 0.04))
    samples = int(np.clip(seconds * SAMPLE_RATE, 0.5 * SAMPLES, 0.95 * SAMPLES))
    frames = samples // HOP + 1
    ends = np.cumsum(lengths) / lengths.sum() * samples / SAMPLE_RATE
    track = _glide(targets, ends, np.arange(frames) * HOP / SAMPLE_RATE, speaker, rng, knobs)
    samples = frames * HOP
    pulses = _spectra(_pulses(samples, speaker, rng, knobs))
    noise = _spectra(rng.standard_normal(samples, dtype=np.float32))
    tract = _resonances(track["formants"])
    breath = speaker.breath * track["voice"]
    mixed = (pulses * track["voice"] + noise * breath) * tract
    mixed += noise * track["noise"] * _band(track["band"], track["width"])
    return _overlap_add(mixed, samples)


def _speaker(number: int, seed: int, knobs: Voice) -> Speaker:
    rng = np.random.default_rng([seed, 77, number])
    height = rng.random()
    low, high = np.log(knobs.pitch_hz)
    tract = np.interp(np.clip(height + rng.normal(0, 0.2), 0, 1), (0, 1), knobs.tract)
    return Speaker(
        name=f"speaker{number:02d}",
        pitch=float(np.exp(low + height * (high - low))),
        formants=tract * np.exp(rng.normal(0, knobs.formant_spread, 4)),
        seconds=rng.uniform(*knobs.tempo),
        breath=rng.uniform(*knobs.breath),
        fall=rng.uniform(*knobs.pitch_fall),
    )


def _glide(
    targets: tuple[Target, ...],
    ends: np.ndarray,
    times: np.ndarray,
    speaker: Speaker,
    rng: np.random.Generator,
    knobs: Voice,
) -> dict[str, np.ndarray]:
    """Computes the parameters over `times`: steady in a segment, gliding around each border; arrays (frames, k)."""
    wobble = np.exp(rng.normal(0, knobs.utterance_spread, (len(targets), 4)))
    formants = np.array([t.formants for t in targets]) * wobble * speaker.formants
    rest = np.array([[t.voice, t.noise, t.band, t.width] for t in targets])
    values = np.concatenate([formants, rest], axis=1)
    half = np.array([t.glide for t in targets[1:]]) / 2
    knots = np.stack([ends[:-1] - half, ends[:-1] + half], axis=1).ravel()
    knots = np.maximum.accumulate(knots)
    levels = np.repeat(values, 2, axis=0)[1:-1]
    track = np.stack([np.interp(times, knots, column) for column in levels.T], axis=1)
    fade = np.clip(np.minimum(times / 0.02, (ends[-1] - times) / 0.06), 0, 1)[:, None]
    columns = dict(
        zip(("voice", "noise", "band", "width"), np.split(track[:, 4:].astype(np.float32), 4, axis=1), strict=True)
    )
    columns["voice"], columns["noise"] = columns["voice"] * fade, columns["noise"] * fade
    return {"formants": track[:, :4], **columns}


def _pulses(samples: int, speaker: Speaker, rng: np.random.Generator, knobs: Voice) -> np.ndarray:
    """Computes the derivative of the glottal flow with a falling, slightly unsteady pitch, (samples,)."""
    knots = np.linspace(0, samples, 24)
    pitch = speaker.pitch * (1 + speaker.fall * (0.5 - np.linspace(0, 1, 24)))
    pitch = pitch * (1 + rng.normal(0, knobs.jitter, 24))
    phase = np.cumsum(np.interp(np.arange(samples), knots, pitch)) / SAMPLE_RATE + rng.random()
    opening = (phase % 1.0) / OPEN_PHASE
    flow = np.where(opening < 1, opening * (2 - 3 * opening), 0.0)
    return (flow * 2).astype(np.float32)


def _resonances(formants: np.ndarray) -> np.ndarray:
    """Computes the complex response of the cascade of resonators: formants (frames, 4) in Hz -> (frames, bins)."""
    z = np.exp(-2j * np.pi * np.arange(WINDOW // 2 + 1) / WINDOW).astype(np.complex64)
    radius = np.exp(-np.pi * BANDWIDTHS / SAMPLE_RATE)
    linear = (2 * radius * np.cos(2 * np.pi * formants / SAMPLE_RATE)).astype(np.float32)
    square = (radius**2).astype(np.float32)
    response = np.ones((len(formants), len(z)), np.complex64)
    for k in range(4):
        gain = (1 - linear[:, k] + square[k])[:, None]
        response *= gain / (1 - linear[:, k, None] * z + square[k] * (z * z))
    return response


def _band(centre: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Computes the bell of friction noise over frequency, (frames, bins)."""
    bins = np.arange(WINDOW // 2 + 1, dtype=np.float32) * (SAMPLE_RATE / WINDOW)
    bell: np.ndarray = np.exp(-(((bins - centre) / width) ** 2))
    return bell


@lru_cache(maxsize=1)
def _window() -> np.ndarray:
    return np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


def _spectra(signal: np.ndarray) -> np.ndarray:
    """Computes short-time spectra, one per hop, centred on it: (frames, bins)."""
    padded = np.pad(signal, (WINDOW // 2, WINDOW // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[: len(signal) : HOP]
    spectra: np.ndarray = fft.rfft(frames * _window())
    return spectra


def _overlap_add(spectra: np.ndarray, samples: int) -> np.ndarray:
    pieces = fft.irfft(spectra, WINDOW) * _window()
    parts = WINDOW // HOP
    total = np.zeros((len(pieces) + parts - 1, HOP), np.float32)
    for k in range(parts):
        total[k : k + len(pieces)] += pieces[:, k * HOP : (k + 1) * HOP]
    start = WINDOW // 2
    return total.ravel()[start : start + samples] / (parts / 2)
