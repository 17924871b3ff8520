"""Holds every constant of the embedded clips. Changing one changes the data set."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_RATE = 8000
FPS = 8
FRAMES = 8
SAMPLES = SAMPLE_RATE  # one second


@dataclass(frozen=True)
class Picture:
    """Describes the drawn scene. Lengths in pixels, colours and contrasts in 0 to 1."""

    canvas: int = 32
    digit: tuple[float, float] = (25.0, 27.0)  # width and height of the scan, uniform
    margin: float = 1.5  # between the scan and the edge of the frame: strokes may swell that far
    drift: float = 2.0  # farthest way along each axis in one clip
    contrast: tuple[float, float] = (0.50, 0.65)  # luminance of ink minus background
    saturation: float = 0.08  # spread of hue around the luminance, ink and background
    clutter: float = 0.05  # half the range of the smooth coloured background
    clutter_cells: int = 7  # its coarse grid
    fragments: int = 1  # pieces of other scans
    fragment_cells: int = 4  # width and height of a piece, of the 8 of a scan
    fragment_contrast: tuple[float, float] = (0.1, 0.25)
    grain: int = 4  # largest change of a pixel of 0 to 255, new in each frame


@dataclass(frozen=True)
class Sound:
    """Describes how a recorded word becomes the sound of a clip. Levels are amplitudes (RMS)."""

    level: tuple[float, float] = (0.11, 0.14)  # of the word; full scale is 1
    noise: tuple[float, float] = (0.05, 0.2)  # relative to the word: -26 to -14 dB
    timing: float = 0.05  # part of the free time around the middle in which the word may lie
    colour: float = 1.0  # largest part of the noise's amplitude that is low-pass filtered
    fragments: int = 1  # pieces of other words
    fragment_samples: int = 960
    fragment_level: tuple[float, float] = (0.05, 0.2)  # relative to the word


PICTURE = Picture()
SOUND = Sound()
