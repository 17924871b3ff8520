"""Holds every constant of the generated clips. Changing one changes the data set."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_RATE = 16000
FPS = 8
FRAMES = 8
SAMPLES = SAMPLE_RATE  # one second


@dataclass(frozen=True)
class Picture:
    """Describes the drawn scene. Lengths in pixels, colours and contrasts in 0 to 1."""

    canvas: int = 32
    digit: tuple[float, float] = (24.0, 26.0)  # width and height of the scan, uniform
    margin: float = 1.5  # between the scan and the edge of the frame: strokes may swell that far
    drift: float = 2.0  # farthest way along each axis in one clip
    contrast: tuple[float, float] = (0.50, 0.65)  # luminance of ink minus background
    dark_ink: float = 0.0  # probability that the ink is the darker one
    saturation: float = 0.08  # spread of hue around the luminance, ink and background
    clutter: float = 0.04  # amplitude of the smooth coloured background
    clutter_cells: int = 6  # its coarse grid
    spots: int = 2  # small soft discs on the background
    spot_contrast: float = 0.12
    grain: float = 0.01  # pixel noise, new in each frame


@dataclass(frozen=True)
class Sound:
    """Describes how a spoken word, synthesised or recorded, becomes the audio of a clip."""

    loudness_db: tuple[float, float] = (-18.5, -17.0)  # level of the word in dB below full scale
    noise_db: tuple[float, float] = (-45.0, -32.0)  # background relative to the word
    timing: float = 0.3  # part of the free time around the middle in which the word may lie
    noise_tilt: tuple[float, float] = (0.0, 1.0)  # exponent of 1 / f


@dataclass(frozen=True)
class Voice:
    """Describes the synthesised speakers and how much their utterances vary."""

    train_speakers: int = 28
    test_speakers: int = 12
    pitch_hz: tuple[float, float] = (90.0, 240.0)
    tract: tuple[float, float] = (0.88, 1.14)  # formant scale; high voices tend to short tracts
    tempo: tuple[float, float] = (0.7, 0.88)  # seconds of the average word
    formant_spread: float = 0.05  # of a speaker, per formant
    utterance_spread: float = 0.04  # of a target, per formant and utterance
    duration_spread: float = 0.15  # of a segment
    pitch_fall: tuple[float, float] = (0.12, 0.35)
    jitter: float = 0.015
    breath: tuple[float, float] = (0.01, 0.06)


PICTURE = Picture()
SOUND = Sound()
VOICE = Voice()
