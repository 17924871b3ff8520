"""The picture of one file: what enters the networks, what is hidden, what is filled in, what is looked at."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xkd.report.style import plt
from xkd.show.looks import Look

STRIP = 8  # pictures in a row at most
WIDTH_INCHES = 11.0
SOUND_INCHES = 1.05  # of a row
HEAT = "inferno"
Row = tuple[str, np.ndarray, bool]  # name, pictures or log-mel, whether weights are drawn over it


def sheet(looks: dict[str, Look], title: str, notes: list[str], start: float) -> Figure:
    """Rows of pictures, then rows of log-mels; weights in units of their mean, over both.

    Args:
        start: seconds of the file at which the views begin.
    """
    rows = [(m, row) for m, look in looks.items() for row in rows_of(look)]
    heights = [_height(looks[m], m) for m, _ in rows]
    footer = _wrapped(notes)
    bottom = 0.17 * footer.count("\n") + 0.55
    figure = plt.figure(figsize=(WIDTH_INCHES, sum(heights) + bottom + 0.35))
    grid = figure.add_gridspec(len(rows), 2, height_ratios=heights, width_ratios=(1, 0.012))
    figure.get_layout_engine().set(rect=(0, bottom / figure.get_figheight(), 1, 1 - bottom / figure.get_figheight()))
    top = highest(looks)
    image = None
    for number, (modality, (name, array, weighed)) in enumerate(rows):
        look = looks[modality]
        last = number == len(rows) - 1 or rows[number + 1][0] != modality
        weights = look.weights if weighed else None
        if modality == "video":
            cells = grid[number, 0].subgridspec(1, min(STRIP, len(array)), wspace=0.03)
            drawn = _strip(figure, cells, array, weights, top, name, start, look.seconds if last else None)
        else:
            axis = figure.add_subplot(grid[number, 0])
            drawn = sound_row(axis, array, look.true, weights, top, name)
            _time_axis(axis, array, start, look.seconds, shown=last)
        image = drawn if weighed else image
    weighed = next(number for number, (_, row) in enumerate(rows) if row[2])
    scale = figure.colorbar(image, cax=figure.add_subplot(grid[weighed, 1]))
    scale.set_label("mean: 1", fontsize=8)
    scale.ax.tick_params(labelsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    if footer:
        figure.text(0.01, 0.06 / figure.get_figheight(), footer, fontsize=8, va="bottom", color="0.25")
    return figure


def rows_of(look: Look) -> list[Row]:
    """What is drawn of a modality, from top to bottom."""
    rows = [("input", look.true, False)]
    if look.predicted is not None:
        rows += [(f"{look.hidden:.0%} hidden", look.masked, False), ("filled in", look.predicted, False)]
    return [*rows, (look.weighed_by.replace(" of the ", "\n"), look.true, True)]


def highest(looks: dict[str, Look]) -> float:
    """End of the colour scale that all weights share; a few patches beyond it look like the highest."""
    return max(2.0, float(np.quantile(np.concatenate([look.weights.ravel() for look in looks.values()]), 0.99)))


def heat(pictures: np.ndarray, weights: np.ndarray, top: float) -> np.ndarray:
    """Pictures (T, H, W, 3) in grey with weights (t, h, w) over them, each on its patch."""
    grey = pictures.mean(-1, keepdims=True)
    factors = [length // cells for length, cells in zip(pictures.shape[:3], weights.shape, strict=True)]
    spread = weights
    for axis, factor in enumerate(factors):
        spread = spread.repeat(factor, axis=axis)
    return 0.45 * grey + 0.55 * plt.get_cmap(HEAT)(spread / top)[..., :3]


def sound_row(axis: Axes, array: np.ndarray, true: np.ndarray, weights: np.ndarray | None, top: float, name: str):
    """A log-mel on the scale of the true one, low frequencies at the bottom, or weights over it in grey."""
    extent = (0, array.shape[1], 0, array.shape[0])
    style = {"origin": "lower", "aspect": "auto", "extent": extent, "interpolation": "nearest"}
    colours = "gray" if weights is not None else "magma"
    image = axis.imshow(array, vmin=true.min(), vmax=true.max(), cmap=colours, **style)
    if weights is not None:
        image = axis.imshow(weights, vmin=0, vmax=top, cmap=HEAT, alpha=0.55, **style)
    _bare(axis)
    _named(axis, name)
    return image


def picture(axis: Axes, array: np.ndarray, name: str | None = None):
    """One picture (H, W, 3)."""
    image = axis.imshow(np.clip(array, 0, 1), interpolation="nearest")
    _bare(axis)
    if name:
        _named(axis, name)
    return image


def _strip(figure: Figure, cells, array, weights, top: float, name: str, start: float, seconds: float | None):
    count = cells.ncols
    shown = heat(array, weights, top) if weights is not None else array
    for column, number in enumerate(((np.arange(count) + 0.5) * len(array) / count).astype(int)):
        axis = figure.add_subplot(cells[column])
        picture(axis, shown[number], name if column == 0 else None)
        if seconds is not None:
            axis.set_xlabel(f"{start + number * seconds / len(array):.2f} s", fontsize=8)
    return plt.cm.ScalarMappable(plt.Normalize(0, top), HEAT)


def _time_axis(axis: Axes, array: np.ndarray, start: float, seconds: float, shown: bool) -> None:
    places = np.linspace(0, array.shape[1], 9)
    axis.set_xticks(places, [f"{start + place / array.shape[1] * seconds:.2f} s" for place in places] if shown else [])
    axis.tick_params(labelsize=8)


def _height(look: Look, modality: str) -> float:
    """Inches of a row."""
    if modality == "audio":
        return SOUND_INCHES
    count = min(STRIP, len(look.true))
    return min(0.86 * WIDTH_INCHES / count, 2.2) + 0.05


def _bare(axis: Axes) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _named(axis: Axes, name: str) -> None:
    axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)


def _wrapped(notes: list[str]) -> str:
    return "\n".join(line for note in notes for line in textwrap.wrap(note, 150))


def film(looks: dict[str, Look], title: str) -> tuple[int, Callable[[int], np.ndarray], float]:
    """Moving pictures of the same: their number, what draws one (H, W, 3) uint8, and how many make a second.

    Pictures on the left, log-mels with the present moment marked on the right.
    """
    video, audio = looks.get("video"), looks.get("audio")
    seconds = (video or audio).seconds
    count = len(video.true) if video else max(round(10 * seconds), 1)
    top = highest(looks)
    figure = plt.figure(figsize=(9.6 if len(looks) == 2 else 6.4, 4.8), dpi=100)
    parts = dict(zip(looks, figure.subfigures(1, len(looks), squeeze=False)[0], strict=True))
    moving = _moving_pictures(parts["video"], video, top) if video else []
    cursors = _cursors(parts["audio"], audio, top) if audio else []
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    figure.canvas.draw()
    figure.set_layout_engine("none")

    def draw(number: int) -> np.ndarray:
        for image, pictures in moving:
            image.set_data(pictures[number])
        for cursor in cursors:
            place = number / count * seconds / audio.seconds * audio.true.shape[1]
            cursor.set_xdata([place, place])
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()

    return count, draw, count / seconds


def _moving_pictures(part, look: Look, top: float) -> list[tuple]:
    rows = rows_of(look)
    axes = part.subplots(2 if len(rows) > 2 else 1, 2, squeeze=False).flat
    moving = []
    for axis, (name, array, weighed) in zip(axes, rows, strict=True):
        pictures = np.clip(heat(array, look.weights, top) if weighed else array, 0, 1)
        moving.append((picture(axis, pictures[0]), pictures))
        axis.set_title(name.replace("\n", " of the "), fontsize=9)
    return moving


def _cursors(part, look: Look, top: float) -> list:
    rows = rows_of(look)
    cursors = []
    for axis, (name, array, weighed) in zip(part.subplots(len(rows), 1, squeeze=False).flat, rows, strict=True):
        sound_row(axis, array, look.true, look.weights if weighed else None, top, "")
        axis.set_title(name.replace("\n", " of the "), fontsize=9)
        cursors.append(axis.axvline(0, color="white", linewidth=1.5))
    return cursors
