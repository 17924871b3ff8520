"""ablations.png: accuracy of every ablation, method by method and per modality."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xkd.params import recipe
from xkd.protocols import Column
from xkd.report.collect import Results
from xkd.report.statistics import compare
from xkd.report.style import MODALITY, YARDSTICK, described, message, plt
from xkd.report.text import method_title
from xkd.settings import Training

SPREAD = 0.18
ROW_INCHES, HEAD_INCHES = 0.23, 0.75
Groups = dict[tuple[str, str], tuple[list[str], list[str]]]  # by owner and method: ablations, modalities


def ablation_bars(results: Results) -> Figure:
    """Draws one row of panels per owner and method, one panel per modality, one bar per ablation that has it.

    Bar: mean over seeds; line: standard deviation; dot: a seed. Rows that are not pretraining (random weights,
    supervised) are grey and hatched; random weights and chance are lines too.
    """
    groups = _groups(results)
    if not groups:
        return message("No task of this table judges encoders of one modality.")
    modes = {name: _mode(recipe(results.params, name).training) for name in results.runs}
    heights = [HEAD_INCHES + ROW_INCHES * len(rows) for rows, _ in groups.values()]
    columns = max(len(modalities) for _, modalities in groups.values())
    figure = plt.figure(figsize=(2 + 3.1 * columns, sum(heights) + 0.3))
    grid = figure.add_gridspec(len(groups), columns, height_ratios=heights)
    for place, ((owner, method), (rows, modalities)) in enumerate(groups.items()):
        axes = [figure.add_subplot(grid[place, across]) for across in range(len(modalities))]
        for axis, modality in zip(axes, modalities, strict=True):
            column = Column(owner, modality, method)
            _panel(axis, results, column, {name: modes[name] for name in rows})
            if (chance := results.chance(column)) is not None:
                axis.axvline(
                    chance, color="black", linewidth=1, linestyle="--", label="chance, of this task's test clips"
                )
            axis.set_title(
                f"{modality}, {method_title(results, column)}, {owner}", color=MODALITY[modality], fontweight="bold"
            )
            axis.set_yticks(range(len(rows)), list(rows) if axis is axes[0] else [])
            axis.invert_yaxis()
            axis.set_xlabel("%" if place == len(groups) - 1 else "")
    lines = {label: line for axis in figure.axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4)
    return described(figure, _words(results, groups))


def _groups(results: Results) -> Groups:
    """Returns per owner and method, in the order of the table, the ablations and the modalities that have it."""
    groups: Groups = {}
    for column in results.columns:
        if column.modality in MODALITY:
            rows, modalities = groups.setdefault((column.owner, column.method), ([], []))
            modalities.append(column.modality)
            rows += [name for name in results.runs if name not in rows and results.values(name, column) is not None]
    order = list(results.runs)
    return {key: (sorted(rows, key=order.index), modalities) for key, (rows, modalities) in groups.items() if rows}


def _words(results: Results, groups: Groups) -> str:
    best = []
    for (owner, method), (rows, modalities) in groups.items():
        for modality in modalities:
            column = Column(owner, modality, method)
            means = {name: np.mean(values) for name in rows if (values := results.values(name, column))}
            if means:
                name = max(means, key=means.__getitem__)
                best.append(f"{owner} {modality} {method_title(results, column)}: {name}, {means[name]:.1f} %")
    return f"Horizontal bars, one per ablation, per task and modality. Longest bars: {'; '.join(best)}."


def _mode(training: Training) -> str:
    """Returns the mode of training; encoders that were given are pretrained, elsewhere."""
    return "pretrain" if training.given else training.mode


def _panel(axis: Axes, results: Results, column: Column, modes: dict[str, str]) -> None:
    digits = results.params.report.decimals
    for position, (name, mode) in enumerate(modes.items()):
        values = results.values(name, column)
        if values is None:
            white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            _beside(axis, 0, position, "no such encoder", color="#666666", bbox=white)
            continue
        one = compare(values, None)
        pretrained = mode == "pretrain"
        colour = MODALITY[column.modality] if pretrained else YARDSTICK
        axis.barh(
            position,
            one.mean,
            xerr=one.sd,
            height=0.7,
            error_kw={"linewidth": 1.2, "capsize": 2},
            color=colour,
            alpha=0.55,
            hatch=None if pretrained else "////",
            edgecolor="white",
        )
        offsets = np.linspace(-SPREAD, SPREAD, len(values)) if len(values) > 1 else 0
        axis.plot(
            values, position + offsets, "o", color=colour, markersize=3, markeredgecolor="black", markeredgewidth=0.4
        )
        end = max([*values, one.mean + (one.sd or 0)])
        _beside(axis, end, position, f"{one.mean:.{digits}f}")
        if mode == "none":
            axis.axvline(one.mean, color="black", linewidth=1, linestyle=":", label=name)
    axis.margins(x=0.14)
    axis.set_xlim(left=0)
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)


def _beside(axis: Axes, x: float, y: float, text: str, **look: Any) -> None:
    axis.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=7.5, **look)
