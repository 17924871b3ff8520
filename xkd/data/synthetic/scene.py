"""Draws the frames of both digit data sets: a handwritten digit drifts over coloured clutter."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
from sklearn.datasets import load_digits

from xkd.data.synthetic.knobs import FRAMES, PICTURE, Picture

TRAIN_SCANS_PER_DIGIT = 130
LUMINANCE = np.array([0.299, 0.587, 0.114])


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


def draw_frames(scan: np.ndarray, rng: np.random.Generator, knobs: Picture = PICTURE) -> np.ndarray:
    """Draws frames (8, canvas, canvas, 3) uint8 of a scan (8, 8) in [0, 1]; all else is drawn from `rng`."""
    ink, ground = _colours(rng, knobs)
    background = _background(ground, rng, knobs)
    cover = _cover(scan, rng, knobs)[..., None]
    frames = (background + (ink - background) * cover).astype(np.float32)
    frames += rng.standard_normal(frames.shape, dtype=np.float32) * knobs.grain
    pixels: np.ndarray = np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
    return pixels


def _cover(scan: np.ndarray, rng: np.random.Generator, knobs: Picture) -> np.ndarray:
    """Computes how much ink covers each pixel, (T, canvas, canvas): the scan moves evenly along a straight line."""
    size = rng.uniform(*knobs.digit)
    room = knobs.canvas - 2 * knobs.margin - size
    way = rng.uniform(-1, 1, 2) * min(knobs.drift, room)
    start = knobs.margin + np.maximum(-way, 0) + rng.uniform(0, 1, 2) * (room - np.abs(way))
    corner = start + np.linspace(0, 1, FRAMES)[:, None] * way
    pixels = (np.arange(knobs.canvas) + 0.5 - corner[..., None]) * (scan.shape[0] / size) - 0.5
    weights = _cubic(pixels[..., None] - np.arange(scan.shape[0]))
    values = weights[:, 0] @ scan @ weights[:, 1].transpose(0, 2, 1)
    return _smoothstep(values, 0.15, 0.75)


def _colours(rng: np.random.Generator, knobs: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Draws the colours of ink and ground; their luminances differ by a drawn contrast."""
    contrast = rng.uniform(*knobs.contrast)
    darker = rng.uniform(0.1, 0.9 - contrast)
    levels = (darker, darker + contrast) if rng.random() < knobs.dark_ink else (darker + contrast, darker)
    return _tinted(levels[0], rng, knobs), _tinted(levels[1], rng, knobs)


def _tinted(level: float, rng: np.random.Generator, knobs: Picture) -> np.ndarray:
    tint = rng.uniform(-knobs.saturation, knobs.saturation, 3)
    tinted: np.ndarray = np.clip(level + tint - tint @ LUMINANCE, 0, 1)
    return tinted


def _background(ground: np.ndarray, rng: np.random.Generator, knobs: Picture) -> np.ndarray:
    """Draws a smooth coloured field with soft spots, (canvas, canvas, 3); the same in every frame."""
    cells = rng.normal(0, knobs.clutter, (knobs.clutter_cells, knobs.clutter_cells, 3))
    smooth = _enlarging(knobs.clutter_cells, knobs.canvas)
    field: np.ndarray = ground + np.einsum("yi,ijc,xj->yxc", smooth, cells, smooth, optimize=True)
    centres = rng.uniform(0, knobs.canvas, (knobs.spots, 2))
    radii = rng.uniform(1.5, 5.0, (knobs.spots, 1))
    colours = rng.uniform(-knobs.spot_contrast, knobs.spot_contrast, (knobs.spots, 3))
    pixels = np.arange(knobs.canvas) + 0.5
    rows, columns = (np.exp(-(((pixels - centres[:, axis, None]) / radii) ** 2)) for axis in (0, 1))
    field += np.einsum("sy,sx,sc->yxc", rows, columns, colours, optimize=True)
    return field


@lru_cache(maxsize=4)
def _enlarging(cells: int, pixels: int) -> np.ndarray:
    places = np.linspace(0, cells - 1, pixels)
    return _cubic(places[:, None] - np.arange(cells))


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Computes Keys' cubic interpolation kernel (a = -1/2)."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    x = np.clip((values - low) / (high - low), 0, 1)
    return x * x * (3 - 2 * x)
