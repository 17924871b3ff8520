"""losses.png and diagnostics.png: what training did, averaged over seeds."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from xkd.errors import UserError
from xkd.report.collect import Results
from xkd.report.style import YARDSTICK, line_styles, message, plt

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
WINDOW = 40


def loss_curves(results: Results) -> Figure:
    """Every loss term per epoch (before its weight)."""
    return _panels(_curves(results, "history.csv", "epoch"), LOSSES, "epoch")


def diagnostic_curves(results: Results) -> Figure:
    """Signs of collapse per step: teacher entropy, norm of the centre, spread of features over the batch.

    A collapsed teacher has entropy near 0 (one output for all) or near its maximum (all outputs equal); collapsed
    features have no spread.
    """
    curves = _curves(results, "steps.csv", "step")
    smooth = {name: frame.rolling(max(1, len(frame) // WINDOW), min_periods=1).mean() for name, frame in curves.items()}
    return _panels(smooth, DIAGNOSTICS, "step")


def _curves(results: Results, file: str, index: str) -> dict[str, pd.DataFrame]:
    """Mean over seeds of every column, per ablation."""
    return {
        name: pd.concat([_read(run.folder / file) for run in runs]).groupby(index).mean()
        for name, runs in results.runs.items()
    }


def _read(path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=float)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: unreadable ({error}); remove it and pretrain that run again") from error


def _panels(curves: dict[str, pd.DataFrame], titles: dict[str, str], index: str) -> Figure:
    """2 x 3 small plots with one legend; an ablation appears where it has values."""
    styles = line_styles(curves)
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 5.2), sharex=True)
    shown = {}
    for axis, (column, title) in zip(axes.flat, titles.items()):
        for name, frame in curves.items():
            values = frame[column].dropna() if column in frame else frame.iloc[:0]
            if len(values):
                shown[name] = axis.plot(values.index, values, linewidth=1.3, label=name, **styles[name])[0]
        axis.set_title(title)
        axis.grid(axis="y")
        if not axis.lines:
            axis.text(0.5, 0.5, "no values", transform=axis.transAxes, ha="center", color=YARDSTICK)
    for axis in axes[-1]:
        axis.set_xlabel(index)
    if not shown:
        plt.close(figure)
        return message(f"No ablation of this table logs any of: {', '.join(titles.values())}.")
    ordered = [shown[name] for name in curves if name in shown]
    figure.legend(handles=ordered, loc="outside right center")
    return figure
