"""Draws one file: what enters the networks, what is hidden, what is filled in, what is looked at."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from xkd.modalities import MODALITIES
from xkd.report.style import plt
from xkd.show.looks import Look

STRIP = 8  # frames in a row at most
GAP = 0.04  # between them, of a frame's width
WIDTH_INCHES, ROW_INCHES, LOG_MEL_INCHES = 11.0, 9.4, 1.05
COLOUR, STRONGEST = np.array([1.0, 0.62, 0.0]), 0.8  # orange: brighter than most of what it covers, also in print
DrawnRow = tuple[str, np.ndarray, np.ndarray | None]  # name, frames or log-mel, weights to be drawn over it


def sheet(looks: dict[str, Look], title: str, notes: list[str], start: float) -> Figure:
    """Draws rows of frames, then rows of log-mels; weights in units of their mean, over both.

    Args:
        start: seconds of the file at which the views begin.
    """
    rows = [(m, row) for m, look in looks.items() for row in rows_of(m, look)]
    heights = [_height(looks[m].true) for m, _ in rows]
    footer = "\n".join(line for note in notes for line in textwrap.wrap(note, 150))
    bottom = 0.2 + 0.16 * len(footer.splitlines())
    figure = plt.figure(figsize=(WIDTH_INCHES, sum(heights) + 0.12 * len(rows) + 0.5 + bottom))
    low = bottom / figure.get_figheight()
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, low, 1, 1 - low)))
    grid = figure.add_gridspec(len(rows), 2, height_ratios=heights, width_ratios=(1, 0.012))
    top = highest(looks)
    for number, (modality, (name, array, weights)) in enumerate(rows):
        axis, look = figure.add_subplot(grid[number, 0]), looks[modality]
        if _has_frames(array):
            _strip(
                axis, array if weights is None else heat(array, weights, top), look.seconds, start, weights is not None
            )
        else:
            _log_mel(axis, array, look.true, weights, top)
            _time_axis(axis, array.shape[1], look.seconds, start, weights is not None)
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        if weights is not None:
            shades = ListedColormap([_coloured(0.35, share) for share in np.linspace(0, 1, 64)])
            colours = ScalarMappable(Normalize(0, top), shades)
            scale = figure.colorbar(colours, cax=figure.add_subplot(grid[number, 1]))
            scale.ax.tick_params(labelsize=8)
            scale.set_label("mean: 1", fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.text(0.01, 0.08 / figure.get_figheight(), footer, fontsize=8, va="bottom", color="0.25")
    return figure


def rows_of(modality: str, look: Look) -> list[DrawnRow]:
    """Lists what is drawn of a modality, from top to bottom."""
    rows: list[DrawnRow] = [(MODALITIES[modality].words, look.true, None)]
    if look.masked is not None and look.predicted is not None:
        rows += [(f"{look.hidden:.0%} hidden", look.masked, None), ("filled in", look.predicted, None)]
    return [*rows, (look.weighed_by, look.true, look.weights)]


def highest(looks: dict[str, Look]) -> float:
    """Computes the end of the colour scale that all weights share; a few patches beyond it look like the highest."""
    return max(2.0, float(np.quantile(np.concatenate([look.weights.ravel() for look in looks.values()]), 0.99)))


def heat(images: np.ndarray, weights: np.ndarray, top: float) -> np.ndarray:
    """Colours images in grey by the weights of their patches: RGB in 0..1.

    Args:
        images: frames (T, H, W, 3), or one log-mel (M, F), in 0..1.
        weights: (t, h, w) or (m, f).
    """
    grey = images.mean(-1, keepdims=True) if _has_frames(images) else images[..., None]
    strength = weights
    for axis, cells in enumerate(weights.shape):
        strength = strength.repeat(images.shape[axis] // cells, axis=axis)
    colours: np.ndarray = np.clip(_coloured(grey, strength[..., None] / top), 0, 1)
    return colours


def _coloured(grey: np.ndarray | float, share: np.ndarray | float) -> np.ndarray:
    """Computes the RGB of grey under a weight of `share` of the highest, squared: a common patch stays rather grey."""
    strength = STRONGEST * np.clip(share, 0, 1) ** 2
    colours: np.ndarray = (1 - strength) * grey + strength * COLOUR
    return colours


def _has_frames(images: np.ndarray) -> bool:
    return images.ndim == 4


def _log_mel(axis: Axes, array: np.ndarray, true: np.ndarray, weights: np.ndarray | None, top: float) -> None:
    """Draws a log-mel on the scale of the true one, low frequencies at the bottom; with weights in grey below them."""
    style: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": (0, array.shape[1], 0, array.shape[0])}
    low, high = true.min(), max(true.max(), true.min() + 1e-6)
    if weights is None:
        axis.imshow(array, vmin=low, vmax=high, cmap="magma", interpolation="nearest", **style)
    else:
        axis.imshow(heat((array - low) / (high - low), weights, top), interpolation="nearest", **style)
    _bare(axis)


def _strip(axis: Axes, frames: np.ndarray, seconds: float, start: float, times: bool) -> None:
    """Draws some frames (T, H, W, 3), evenly picked, side by side."""
    count = min(STRIP, len(frames))
    numbers = ((np.arange(count) + 0.5) * len(frames) / count).astype(int)
    height, width = frames.shape[1:3]
    gap = max(round(width * GAP), 1)
    strip = np.ones((height, count * (width + gap) - gap, 3))
    for place, number in enumerate(numbers):
        strip[:, place * (width + gap) :][:, :width] = frames[number]
    axis.imshow(np.clip(strip, 0, 1), interpolation="nearest")
    _bare(axis)
    if times:
        labels = [f"{start + number * seconds / len(frames):.2f} s" for number in numbers]
        axis.set_xticks(np.arange(count) * (width + gap) + width / 2, labels, fontsize=8)
        axis.tick_params(length=0)


def _time_axis(axis: Axes, columns: int, seconds: float, start: float, times: bool) -> None:
    places = np.linspace(0, columns, 9)
    axis.set_xticks(places, [f"{start + place / columns * seconds:.2f} s" for place in places] if times else [])
    axis.tick_params(labelsize=8)


def _height(images: np.ndarray) -> float:
    """Computes the inches of a row, such that a strip of frames is as wide as a log-mel."""
    if not _has_frames(images):
        return LOG_MEL_INCHES
    height, width = images.shape[1:3]
    inches: float = ROW_INCHES * height / width / min(STRIP, len(images))
    return min(inches, 2.5)


def _bare(axis: Axes) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def moving(looks: dict[str, Look], title: str) -> tuple[int, Callable[[int], np.ndarray], float]:
    """Draws the same as a video: returns its number of images, a function that draws one, and how many make a second.

    Frames move on the left; log-mels on the right have the present moment marked.
    """
    seconds = next(iter(looks.values())).seconds
    count = next((len(one.true) for one in looks.values() if _has_frames(one.true)), max(round(10 * seconds), 1))
    top = highest(looks)
    figure = plt.figure(figsize=(9.6 if len(looks) == 2 else 6.4, 4.8), dpi=100)
    parts = figure.subfigures(1, len(looks), squeeze=False)[0]
    movers = [
        (_moving_frames if _has_frames(one.true) else _moving_cursors)(part, modality, one, top)
        for part, (modality, one) in zip(parts, looks.items(), strict=True)
    ]
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")

    def draw(number: int) -> np.ndarray:
        for move in movers:
            move(number, number / count * seconds)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    return count, draw, count / seconds


def _moving_frames(part: SubFigure, modality: str, look: Look, top: float) -> Callable[[int, float], None]:
    rows = rows_of(modality, look)
    axes = part.subplots(2 if len(rows) > 2 else 1, 2, squeeze=False).flat
    shown = []
    for axis, (name, array, weights) in zip(axes, rows, strict=True):
        frames = np.clip(array if weights is None else heat(array, weights, top), 0, 1)
        shown.append((axis.imshow(frames[0], interpolation="nearest"), frames))
        axis.set_title(name.replace("\n", " "), fontsize=9)
        _bare(axis)

    def move(number: int, _seconds: float) -> None:
        for image, frames in shown:
            image.set_data(frames[number])

    return move


def _moving_cursors(part: SubFigure, modality: str, look: Look, top: float) -> Callable[[int, float], None]:
    rows = rows_of(modality, look)
    cursors = []
    for axis, (name, array, weights) in zip(part.subplots(len(rows), 1, squeeze=False).flat, rows, strict=True):
        _log_mel(axis, array, look.true, weights, top)
        axis.set_title(name.replace("\n", " "), fontsize=9)
        cursors.append(axis.axvline(0, color="white", linewidth=1.5))

    def move(_number: int, seconds: float) -> None:
        place = seconds / look.seconds * look.true.shape[1]
        for cursor in cursors:
            cursor.set_xdata([place, place])

    return move
