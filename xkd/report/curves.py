"""Draws losses.png, diagnostics.png and alignment.png: what training did, averaged over seeds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pydantic import TypeAdapter

from xkd import runs
from xkd.errors import UserError
from xkd.files import read_json
from xkd.logged import LoggedColumn, unit_value
from xkd.params import recipe
from xkd.report.collect import Results, Run
from xkd.report.style import described, line_styles, message, plt
from xkd.runs.records import read_curve

COLUMNS_TYPE = TypeAdapter(list[LoggedColumn])
EPOCHS = 10  # fewer make no curve
WINDOW = 40
MARKED = 6  # markers along a line


def loss_curves(results: Results) -> Figure:
    """Draws every loss term (before its weight) per epoch, or per step where there are too few epochs for a curve."""
    index = "epoch" if results.params.training.epochs >= EPOCHS else "step"
    figure, columns = _panels(results, "loss", index)
    return described(
        figure, f"Line plots of {len(columns)} loss terms per {index}, one line per ablation. {_last(figure)}"
    )


def diagnostic_curves(results: Results) -> Figure:
    """Draws diagnostics per step: teacher entropy, norm of the centre, spread of features over the batch.

    Dotted lines: natural limits, such as entropy log K and norm sqrt(K), where a teacher says the same of every clip.
    """
    figure, columns = _panels(results, "diagnostic", "step")
    logits = {recipe(results.params, name).model.head.out for name in results.runs}
    for axis, column in zip(figure.axes, columns, strict=False):
        if column.limit and len(logits) == 1:
            value = unit_value(column.limit, *logits)
            axis.axhline(value, color="black", linewidth=1, linestyle=(0, (1, 2)))
            axis.annotate(
                column.limit, (1, value), (-2, 3), ("axes fraction", "data"), textcoords="offset points", ha="right"
            )
            axis.margins(y=0.1)
    kinds = dict.fromkeys(column.title.split(",")[0] for column in columns)
    return described(
        figure,
        f"Line plots per step of {', '.join(kinds)}, video above, audio below, one line per ablation; the verdicts "
        f"stand in the table. {_last(figure)}",
    )


def alignment_curves(results: Results) -> Figure:
    """Draws the discrepancy between the modalities over the steps, one panel for students and one for teachers."""
    figure, _ = _panels(results, "loss", "step", group="alignment")
    what = (
        "Line plots of the discrepancy between the video and the audio logits per step, for students and for teachers"
    )
    return described(figure, f"{what}, one line per ablation that aligns. {_last(figure)}")


def read_columns(run: Run) -> list[LoggedColumn]:
    """Returns what a run says about the columns of its curves.

    Raises:
        UserError: it says nothing that this version understands.
    """
    path = run.folder / runs.METRICS
    try:
        return COLUMNS_TYPE.validate_python(read_json(path)["columns"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: the run does not say what it logs ({error}); pretrain that run again") from error


def described_columns(results: Results) -> list[LoggedColumn]:
    """Returns the columns of all runs, each once."""
    every = [run for seeds in results.runs.values() for run in seeds]
    return list({one.name: one for run in every for one in read_columns(run)}.values())


def _curves(results: Results, index: str) -> dict[str, pd.DataFrame]:
    """Averages every column over seeds, per ablation; steps as running means."""
    file = {"epoch": runs.HISTORY, "step": runs.STEPS}[index]
    curves = {
        name: pd.concat([read_curve(run.folder / file) for run in seeds]).groupby(index).mean()
        for name, seeds in results.runs.items()
    }
    if index == "epoch":
        return curves
    return {name: frame.rolling(max(1, len(frame) // WINDOW), min_periods=1).mean() for name, frame in curves.items()}


def _panels(results: Results, kind: str, index: str, group: str = "") -> tuple[Figure, list[LoggedColumn]]:
    """Draws small plots, a row for each modality, with one legend; a column or an ablation appears where it has values.

    Args:
        group: draws only the columns whose titles begin with this word, and leaves the word out; in one row.
    """
    curves, asked = _curves(results, index), [one for one in described_columns(results) if one.kind == kind]
    there = {name for frame in curves.values() for name in frame.columns[frame.notna().any()]}
    found = sorted((one for one in asked if one.name in there and one.title.startswith(group)), key=lambda one: one.row)
    if not found:
        return message(f"No ablation of this table logs any of: {', '.join(one.title for one in asked)}."), []
    titles = {one.name: one.title.removeprefix(f"{group}, ") for one in found}
    styles = line_styles(curves)
    rows = [len(found)] if group else list(Counter(one.row for one in found).values())
    size = max(11.5, 3.7 * max(rows)), 0.6 + 2.5 * len(rows)
    figure, axes = plt.subplots(len(rows), max(rows), figsize=size, sharex=True, squeeze=False)
    used = [axes[row, place] for row, count in enumerate(rows) for place in range(count)]
    shown: dict[str, Line2D] = {}
    for axis, (column, title) in zip(used, titles.items(), strict=True):
        for name, frame in curves.items():
            values = frame[column].dropna() if column in frame else frame.iloc[:0]
            if len(values):
                every = max(1, len(values) // MARKED)
                shown[name] = axis.plot(
                    values.index, values, label=name, markevery=(len(shown) % every, every), **styles[name]
                )[0]
        axis.set_title(title)
        axis.grid(axis="y")
    for place, column_of_axes in enumerate(axes.T):
        lowest = max(row for row, count in enumerate(rows) if place < count)
        column_of_axes[lowest].set_xlabel(index)
        column_of_axes[lowest].tick_params(labelbottom=True)
    for unused in set(axes.flat) - set(used):
        unused.remove()
    figure.legend(handles=[shown[name] for name in curves if name in shown], loc="outside right center")
    return figure, found


def _last(figure: Figure) -> str:
    """Says where the lines end."""
    panels = []
    for axis in figure.axes:
        ends = [
            f"{label} {np.asarray(line.get_ydata())[-1]:.3g}"
            for line in axis.lines
            if not (label := str(line.get_label())).startswith("_")
        ]
        if ends:
            panels.append(f"{axis.get_title(loc='left')}: {', '.join(ends)}")
    return f"Last values. {'; '.join(panels)}." if panels else ""
