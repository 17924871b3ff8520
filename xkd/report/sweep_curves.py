"""sweeps.png and the table of sweeps: figures of rows that differ in the value of one setting, or of two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t

from xkd.protocols import Column
from xkd.report.collect import Results
from xkd.report.statistics import CONFIDENCE, compare
from xkd.report.style import MODALITY, described, line_styles, message, plt
from xkd.report.text import EMPTY, TextTable, method_title, title
from xkd.rows import spoken, told
from xkd.settings import Point

LOGARITHMIC = 20  # largest value / smallest value from which on an axis is logarithmic
CLOSEST = 0.05  # of the whole axis, between the labels of two values
ROW_INCHES, WIDTH_INCHES = 2.6, 3.6


@dataclass(frozen=True)
class Cell:
    """A column of one point: mean over seeds, and half the width of its interval (None with one seed)."""

    point: Point
    mean: float
    half: float | None
    digits: int

    def __str__(self) -> str:
        return f"{self.mean:.{self.digits}f}" + ("" if self.half is None else f"\n± {self.half:.{self.digits}f}")


def sweep_curves(results: Results) -> Figure:
    """Draws a curve for each row that a sweep changes, and a heat map where it has two settings; a panel per modality.

    Line: mean over seeds with its confidence interval. Ring: the setting that the row itself has.
    """
    sweeps, columns = results.params.sweeps, sweep_columns(results)
    if not columns:
        return message("No task judges the rows of a sweep.")
    rows = [(name, of) for name, sweep in sweeps.items() for of in (sweep.of if sweep.grid else ("",))]
    size = (0.6 + WIDTH_INCHES * len(columns), 0.5 + ROW_INCHES * len(rows))
    figure, axes = plt.subplots(len(rows), len(columns), figsize=size, squeeze=False)
    styles = line_styles(dict.fromkeys(of for sweep in sweeps.values() for of in sweep.of))
    for (name, of), across in zip(rows, axes, strict=True):
        for column, axis in zip(columns, across, strict=True):
            if of:
                _heat_map(axis, results, column, name, of)
            else:
                _curves(axis, results, column, name, styles)
            head = f"{column.modality}, {method_title(results, column)}"
            axis.set_title(f"{head}: {of}" if of else head, color=MODALITY[column.modality], fontweight="bold")
    lines = {label: line for axis in figure.axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4)
    return described(figure, _words(results, columns))


def sweep_columns(results: Results) -> list[Column]:
    """Returns the first main column of each modality that two points of a sweep or more have."""
    found: dict[str, Column] = {}
    points = {point.row for point in results.params.points}
    for column in results.main_columns:
        if column.modality in MODALITY and sum(results.values(row, column) is not None for row in points) > 1:
            found.setdefault(column.modality, column)
    return [found[modality] for modality in MODALITY if modality in found]


def sweep_table(results: Results) -> TextTable | None:
    """Returns one line per point, its best figures of each curve marked; None where there is no sweep."""
    params, columns = results.params, sweep_columns(results)
    header = ["sweep", "row", "settings", *(title(results, one).removeprefix("student ") for one in columns)]
    rows, best = [], set()
    for number, point in enumerate(params.points):
        figures = {column: _cell(results, point, column) for column in columns}
        shown = [str(one).replace("\n", " ") if one else EMPTY for one in figures.values()]
        rows.append([point.sweep, point.row, told(params.sweeps[point.sweep], point.values), *shown])
        for place, (column, one) in enumerate(figures.items(), start=3):
            if one and one.mean == max(other.mean for other in _cells(results, column, point.sweep, point.of)):
                best.add((number, place))
    return TextTable(header, rows, best=best) if rows else None


def _cell(results: Results, point: Point, column: Column) -> Cell | None:
    values = results.values(point.row, column)
    if values is None:
        return None
    one = compare(values, None)
    quantile = t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    half = None if one.sd is None else float(quantile * one.sd / math.sqrt(len(values)))
    return Cell(point, one.mean, half, results.params.report.decimals)


def _cells(results: Results, column: Column, sweep: str, of: str) -> list[Cell]:
    points = [point for point in results.params.points if (point.sweep, point.of) == (sweep, of)]
    return [one for point in points if (one := _cell(results, point, column))]


def _curves(axis: Axes, results: Results, column: Column, name: str, styles: dict[str, dict[str, Any]]) -> None:
    sweep = results.params.sweeps[name]
    ((key, values),) = sweep.axes.items()
    places, scale = _places(values)
    for of in sweep.of:
        cells = {places[values.index(one.point.values[0])]: one for one in _cells(results, column, name, of)}
        if not cells:
            continue
        x = sorted(cells)
        axis.errorbar(
            x,
            [cells[place].mean for place in x],
            yerr=[cells[place].half or 0.0 for place in x],
            label=of,
            capsize=3,
            elinewidth=0.9,
            **styles[of],
        )
        own = [place for place in x if cells[place].point.row == of]
        ring = {"markersize": 10, "markerfacecolor": "none", "color": styles[of]["color"]}
        axis.plot(own, [cells[place].mean for place in own], "o", **ring)
    axis.set_xscale(scale)
    axis.set_xticks(places, [spoken(value) for value in values])
    axis.minorticks_off()
    axis.set_xlabel(key)
    axis.set_ylabel("%")
    axis.grid(axis="y")


def _places(values: tuple[Any, ...]) -> tuple[list[float], str]:
    """Returns where values stand on an axis, and its scale: numbers at their place, unless too close to tell apart."""
    order = [float(number) for number in range(len(values))]
    if len(values) < 2 or not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return order, "linear"
    logarithmic = min(values) > 0 and max(values) / min(values) >= LOGARITHMIC
    stretched = np.sort(np.log(values) if logarithmic else np.asarray(values, dtype=float))
    if np.diff(stretched).min() < CLOSEST * (stretched[-1] - stretched[0]):
        return order, "linear"
    return [float(value) for value in values], "log" if logarithmic else "linear"


def _heat_map(axis: Axes, results: Results, column: Column, name: str, of: str) -> None:
    (down, rows), (across, columns) = results.params.sweeps[name].axes.items()
    means = np.full((len(rows), len(columns)), np.nan)
    cells = {}
    for one in _cells(results, column, name, of):
        place = rows.index(one.point.values[0]), columns.index(one.point.values[1])
        means[place], cells[place] = one.mean, one
    axis.imshow(means, cmap="cividis", aspect="auto")
    middle = (np.nanmin(means) + np.nanmax(means)) / 2 if cells else 0.0
    for (y, x), one in cells.items():
        words, colour = (
            f"{one}\n(its own)" if one.point.row == of else str(one),
            "black" if one.mean > middle else "white",
        )
        axis.text(x, y, words, color=colour, fontsize=8, ha="center", va="center")
    axis.set_xticks(range(len(columns)), [spoken(value) for value in columns])
    axis.set_yticks(range(len(rows)), [spoken(value) for value in rows])
    axis.set_xlabel(across)
    axis.set_ylabel(down)


def _words(results: Results, columns: list[Column]) -> str:
    """Says where the best point of each curve or heat map lies."""
    best = []
    for name, sweep in results.params.sweeps.items():
        for of in sweep.of:
            for column in columns:
                if cells := _cells(results, column, name, of):
                    top = max(cells, key=lambda one: one.mean)
                    best.append(f"{of} {column.modality}: {told(sweep, top.point.values)}, {top.mean:.1f} %")
    return f"Curves, or heat maps of two settings, of accuracy over the values of each sweep. Best: {'; '.join(best)}."
