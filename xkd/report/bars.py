"""ablations.png: accuracy of every ablation per modality."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xkd.params import recipe
from xkd.report.collect import Results
from xkd.report.statistics import compare
from xkd.report.style import MODALITY, YARDSTICK, message, plt
from xkd.settings import Training

SPREAD = 0.18


def ablation_bars(results: Results, chance: float | None) -> Figure:
    """Linear probes of the student: bar the mean, line the standard deviation, one dot per seed.

    Rows that are not pretraining (random weights, supervised) are grey; random weights and chance are lines too.
    """
    panels = [m for m in MODALITY if f"student.{m}.linear" in results.tasks]
    if not panels:
        return message("No linear probes of student encoders in this table.")
    modes = {name: _mode(recipe(results.params, name).training) for name in results.runs}
    size = (2 + 2.9 * len(panels), 1 + 0.34 * len(modes))
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for axis, modality in zip(axes[0], panels):
        _panel(axis, results, modality, modes)
        if chance is not None:
            axis.axvline(chance, color="black", linewidth=1, linestyle="--", label="chance")
        axis.set_title(f"{modality}, linear probe", color=MODALITY[modality], fontweight="bold")
    axes[0, 0].set_yticks(range(len(modes)), list(modes))
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _mode(training: Training) -> str:
    """Given encoders were pretrained elsewhere: no yardstick."""
    return "pretrain" if training.weights else training.mode


def _panel(axis: Axes, results: Results, modality: str, modes: dict[str, str]) -> None:
    digits = results.params.report.decimals
    for position, (name, mode) in enumerate(modes.items()):
        values = results.values(name, f"student.{modality}.linear")
        if values is None:
            white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            _beside(axis, 0, position, "no such encoder", color=YARDSTICK, bbox=white)
            continue
        one = compare(values, None)
        colour = MODALITY[modality] if mode == "pretrain" else YARDSTICK
        axis.barh(position, one.mean, xerr=one.sd, height=0.7, color=colour, alpha=0.55, error_kw={"linewidth": 1.2})
        offsets = np.linspace(-SPREAD, SPREAD, len(values)) if len(values) > 1 else 0
        axis.plot(
            values, position + offsets, "o", color=colour, markersize=3, markeredgecolor="black", markeredgewidth=0.4
        )
        end = max([*values, one.mean + (one.sd or 0)])
        _beside(axis, end, position, f"{one.mean:.{digits}f}")
        if mode == "none":
            axis.axvline(one.mean, color="black", linewidth=1, linestyle=":", label=name)
    axis.margins(x=0.12)
    axis.set_xlim(left=0)
    axis.set_xlabel("top-1 %")
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)


def _beside(axis: Axes, x: float, y: float, text: str, **look) -> None:
    axis.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=7, **look)
