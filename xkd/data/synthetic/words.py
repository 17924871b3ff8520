"""Describes ten English words as sequences of targets for the synthesised voice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Describes one steady state: the voice glides from target to target.

    Attributes:
        length: relative duration.
        formants: F1 to F4 in Hz of an average adult.
        voice: amplitude of the glottal pulses.
        noise: amplitude of the friction, a band around `band` Hz that is `width` Hz wide.
        glide: seconds of the transition into this target.
    """

    length: float
    formants: tuple[float, float, float, float]
    voice: float = 1.0
    noise: float = 0.0
    band: float = 4000.0
    width: float = 2000.0
    glide: float = 0.05


def _vowel(length: float, f1: float, f2: float, f3: float, voice: float = 1.0, glide: float = 0.07) -> Target:
    return Target(length, (f1, f2, f3, 3500.0), voice, glide=glide)


def _friction(length: float, noise: float, band: float, width: float, f2: float = 1600.0, voice: float = 0.0) -> Target:
    return Target(length, (300.0, f2, 2600.0, 3500.0), voice, noise, band, width, glide=0.03)


def _silence(length: float, f2: float = 1700.0) -> Target:
    return Target(length, (300.0, f2, 2600.0, 3500.0), 0.0, glide=0.012)


def _burst(noise: float, band: float, width: float, f2: float = 1700.0) -> Target:
    return Target(0.25, (300.0, f2, 2600.0, 3500.0), 0.0, noise, band, width, glide=0.004)


_S = _friction(1.3, 0.32, 6000, 2500)
_N = Target(1.0, (280.0, 1400.0, 2400.0, 3400.0), 0.45, glide=0.03)
_R = _vowel(0.6, 420, 1150, 1650, 0.7)
_V = _friction(0.6, 0.05, 3000, 4000, f2=1100, voice=0.35)
_F = _friction(1.0, 0.10, 4500, 5000, f2=1100)
_AH, _IH, _AY = _vowel(1.6, 660, 1200, 2450), _vowel(0.9, 400, 1950, 2550), _vowel(1.2, 740, 1250, 2500)

WORDS: tuple[tuple[Target, ...], ...] = (
    (
        _friction(0.8, 0.16, 5800, 2500, voice=0.3),
        _IH,
        _R,
        _vowel(1.0, 500, 950, 2400),
        _vowel(0.9, 370, 800, 2350, 0.8),
    ),
    (_vowel(0.7, 310, 680, 2250, 0.6), _AH, _N, _N),
    (_silence(0.2), _burst(0.55, 4200, 2500), _friction(0.4, 0.12, 3500, 3500), _vowel(2.4, 320, 1050, 2250)),
    (_friction(0.9, 0.07, 5500, 4500, f2=1300), _R, _vowel(2.2, 290, 2250, 2950)),
    (_F, _vowel(1.8, 540, 860, 2450), _vowel(1.0, 450, 1200, 1700, 0.7)),
    (_F, _AY, _vowel(1.0, 430, 1950, 2550), _V),
    (_S, _IH, _silence(0.7, 2000), _burst(0.4, 2600, 1500, 2000), _S),
    (_S, _vowel(1.0, 560, 1750, 2500), _V, _vowel(0.7, 500, 1400, 2450, 0.8), _N),
    (_vowel(1.2, 480, 2050, 2600), _vowel(0.8, 350, 2250, 2750), _silence(0.8, 1900), _burst(0.5, 4200, 2500)),
    (_N, _AY, _vowel(1.0, 430, 1950, 2550), _N),
)
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
