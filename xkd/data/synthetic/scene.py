"""Draws the frames of a clip: a handwritten digit drifts over coloured clutter, among pieces of other digits.

Only elementwise arithmetic in a fixed order is used: neither sums of arrays, products of matrices nor functions such
as exp, whose last digit depends on the processor.
"""

from __future__ import annotations

from functools import cache, lru_cache, reduce

import numpy as np
from sklearn.datasets import load_digits

from xkd.data.synthetic.draws import arrays_between, between
from xkd.data.synthetic.knobs import FRAMES, PICTURE, Picture

TRAIN_SCANS_PER_DIGIT = 130
LUMINANCE = (0.299, 0.587, 0.114)
CELLS = 8  # along each side of a scan


@lru_cache(maxsize=1)
def scans() -> tuple[np.ndarray, np.ndarray]:
    """Returns the 1,797 scans of scikit-learn: images (N, 8, 8) in [0, 1] and digits (N,)."""
    digits = load_digits()
    return digits.images / 16.0, digits.target


@cache
def scans_of(split: str, digit: int, seed: int) -> np.ndarray:
    """Returns the numbers of the scans of one digit in a split, in the order in which clips use them."""
    numbers = np.flatnonzero(scans()[1] == digit)
    numbers = np.random.default_rng([seed, digit]).permutation(numbers)
    return numbers[:TRAIN_SCANS_PER_DIGIT] if split == "train" else numbers[TRAIN_SCANS_PER_DIGIT:]


def draw(
    scan: np.ndarray, others: list[np.ndarray], rng: np.random.Generator, knobs: Picture = PICTURE
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a scan (8, 8) in [0, 1]; all else is drawn from `rng`.

    Args:
        others: scans, a piece of each of which lies somewhere.

    Returns:
        frames (8, canvas, canvas, 3) uint8, and how much of each pixel the digit covers, (8, canvas, canvas) in [0, 1].
    """
    darker = between(rng, 0.1, 0.9 - knobs.contrast[1])
    ground = _tinted(darker, rng, knobs)
    frames = np.broadcast_to(ground + _clutter(rng, knobs), (FRAMES, knobs.canvas, knobs.canvas, 3))
    for other in others:
        contrast = between(rng, *knobs.fragment_contrast)
        frames = _inked(frames, _tinted(darker + contrast, rng, knobs), _cover(_piece(other, rng, knobs), rng, knobs))
    cover = _cover(scan, rng, knobs)
    frames = _inked(frames, _tinted(darker + between(rng, *knobs.contrast), rng, knobs), cover)
    grain = rng.integers(-knobs.grain, knobs.grain + 1, frames.shape)
    pixels: np.ndarray = np.clip(np.rint(frames * 255) + grain, 0, 255).astype(np.uint8)
    return pixels, cover


def _inked(frames: np.ndarray, ink: np.ndarray, cover: np.ndarray) -> np.ndarray:
    blended: np.ndarray = frames + (ink - frames) * cover[..., None]
    return blended


def _piece(scan: np.ndarray, rng: np.random.Generator, knobs: Picture) -> np.ndarray:
    """Returns a scan of which all but a square of cells is blank."""
    row, column = rng.integers(CELLS - knobs.fragment_cells + 1, size=2)
    inside = np.zeros_like(scan)
    inside[row : row + knobs.fragment_cells, column : column + knobs.fragment_cells] = 1
    piece: np.ndarray = scan * inside
    return piece


def _cover(scan: np.ndarray, rng: np.random.Generator, knobs: Picture) -> np.ndarray:
    """Computes how much ink covers each pixel, (T, canvas, canvas): the scan moves evenly along a straight line."""
    size = between(rng, *knobs.digit)
    room = knobs.canvas - 2 * knobs.margin - size
    way = arrays_between(rng, -1, 1, (2,)) * min(knobs.drift, room)
    start = knobs.margin + np.maximum(-way, 0) + rng.random(2) * (room - np.abs(way))
    corner = start + (np.arange(FRAMES) / (FRAMES - 1))[:, None] * way
    places = (np.arange(knobs.canvas) + 0.5 - corner[..., None]) * (CELLS / size) - 0.5
    return _smoothstep(_enlarged(scan[..., None], places[:, 0], places[:, 1])[..., 0], 0.15, 0.75)


def _enlarged(cells: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Interpolates cells (y, x, k) at rows (T, Y) and columns (T, X), cubically: (T, Y, X, k)."""
    down = [_cubic(rows - y)[..., None, None] * cells[y] for y in range(cells.shape[0])]
    summed = reduce(np.add, down)
    across = [_cubic(columns - x)[:, None, :, None] * summed[:, :, x, None] for x in range(cells.shape[1])]
    enlarged: np.ndarray = reduce(np.add, across)
    return enlarged


def _tinted(level: float, rng: np.random.Generator, knobs: Picture) -> np.ndarray:
    red, green, blue = arrays_between(rng, -knobs.saturation, knobs.saturation, (3,)).tolist()
    grey = LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue
    tinted: np.ndarray = np.clip([level + tint - grey for tint in (red, green, blue)], 0, 1)
    return tinted


def _clutter(rng: np.random.Generator, knobs: Picture) -> np.ndarray:
    """Draws a smooth coloured field, (canvas, canvas, 3)."""
    cells = arrays_between(rng, -knobs.clutter, knobs.clutter, (knobs.clutter_cells, knobs.clutter_cells, 3))
    places = np.arange(knobs.canvas)[None] * ((knobs.clutter_cells - 1) / (knobs.canvas - 1))
    field: np.ndarray = _enlarged(cells, places, places)[0]
    return field


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Computes Keys' cubic interpolation kernel (a = -1/2)."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    x = np.clip((values - low) / (high - low), 0, 1)
    return x * x * (3 - 2 * x)
