"""losses.png, diagnostics.png and alignment.png: what training did, averaged over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from xkd import runs
from xkd.params import recipe
from xkd.report.collect import Results
from xkd.report.style import YARDSTICK, described, line_styles, message, plt
from xkd.runs.records import read_curve

LOSSES = {
    "reconstruction_video": "reconstruction, video",
    "distillation_video": "distillation, video student",
    "alignment_students": "alignment, students",
    "reconstruction_audio": "reconstruction, audio",
    "distillation_audio": "distillation, audio student",
    "alignment_teachers": "alignment, teachers",
}
DIAGNOSTICS = {
    "teacher_entropy_video": "teacher entropy, video",
    "centre_norm_video": "centre norm, video",
    "feature_spread_video": "student feature spread, video",
    "teacher_entropy_audio": "teacher entropy, audio",
    "centre_norm_audio": "centre norm, audio",
    "feature_spread_audio": "student feature spread, audio",
}
ALIGNMENT = {"alignment_students": "students", "alignment_teachers": "teachers"}
LIMITS = {"teacher entropy": ("log K", np.log), "centre norm": ("√K", np.sqrt)}
EPOCHS = 10  # fewer make no curve
WINDOW = 40
MARKED = 6  # markers along a line


def loss_curves(results: Results) -> Figure:
    """Every loss term (before its weight) per epoch, or per step where there are too few epochs for a curve."""
    index = "epoch" if results.params.training.epochs >= EPOCHS else "step"
    figure = _panels(_curves(results, index), LOSSES, index)
    return described(figure, f"Line plots of six loss terms per {index}, one line per ablation. {_last(figure)}")


def diagnostic_curves(results: Results) -> Figure:
    """Signs of collapse per step: teacher entropy, norm of the centre, spread of features over the batch.

    Dotted lines: entropy log K and norm sqrt(K), where a teacher says the same of every clip.
    """
    figure = _panels(_curves(results, "step"), DIAGNOSTICS, "step")
    for axis in figure.axes:
        kind = axis.get_title(loc="left").split(",")[0]
        limits = {recipe(results.params, name).model.head.out for name in results.runs}
        if kind in LIMITS and axis.lines and len(limits) == 1:
            name, limit = LIMITS[kind]
            value = limit(limits.pop())
            axis.axhline(value, color="black", linewidth=1, linestyle=(0, (1, 2)))
            axis.annotate(
                name, (1, value), (-2, 3), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right"
            )
            axis.margins(y=0.1)
    return described(
        figure,
        "Line plots per step of teacher entropy, centre norm and feature spread, video above, audio below, one line per "
        f"ablation; the verdicts stand in the table. {_last(figure)}",
    )


def alignment_curves(results: Results) -> Figure:
    """Discrepancy between the modalities over the steps, one panel for students and one for teachers."""
    figure = _panels(_curves(results, "step"), ALIGNMENT, "step")
    what = (
        "Line plots of the discrepancy between the video and the audio logits per step, for students and for teachers"
    )
    return described(figure, f"{what}, one line per ablation that aligns. {_last(figure)}")


def _curves(results: Results, index: str) -> dict[str, pd.DataFrame]:
    """Mean over seeds of every column, per ablation; steps as running means."""
    file = {"epoch": runs.HISTORY, "step": runs.STEPS}[index]
    curves = {
        name: pd.concat([read_curve(run.folder / file) for run in seeds]).groupby(index).mean()
        for name, seeds in results.runs.items()
    }
    if index == "epoch":
        return curves
    return {name: frame.rolling(max(1, len(frame) // WINDOW), min_periods=1).mean() for name, frame in curves.items()}


def _panels(curves: dict[str, pd.DataFrame], titles: dict[str, str], index: str) -> Figure:
    """Small plots, three in a row, with one legend; an ablation appears where it has values."""
    styles = line_styles(curves)
    rows, columns = -(-len(titles) // 3), min(3, len(titles))
    figure, axes = plt.subplots(rows, columns, figsize=(11.5, 0.6 + 2.5 * rows), sharex=True, squeeze=False)
    shown: dict[str, Line2D] = {}
    for axis, (column, title) in zip(axes.flat, titles.items()):
        for name, frame in curves.items():
            values = frame[column].dropna() if column in frame else frame.iloc[:0]
            if len(values):
                every = max(1, len(values) // MARKED)
                shown[name] = axis.plot(
                    values.index, values, label=name, markevery=(len(shown) % every, every), **styles[name]
                )[0]
        axis.set_title(title)
        axis.grid(axis="y")
        if not axis.lines:
            axis.text(0.5, 0.5, "no values", transform=axis.transAxes, ha="center", color=YARDSTICK)
    for axis in axes[-1]:
        axis.set_xlabel(index)
    if not shown:
        plt.close(figure)
        return message(f"No ablation of this table logs any of: {', '.join(titles.values())}.")
    figure.legend(handles=[shown[name] for name in curves if name in shown], loc="outside right center")
    return figure


def _last(figure: Figure) -> str:
    """Where the lines end, in words."""
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
