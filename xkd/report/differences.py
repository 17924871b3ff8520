"""differences.png: every ablation against the baseline, column by column, with intervals."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xkd.protocols import Column
from xkd.report.collect import Results
from xkd.report.csv_table import comparison
from xkd.report.statistics import CONFIDENCE, Comparison
from xkd.report.style import MODALITY, described, message, plt
from xkd.report.text import method_title

ROW_INCHES, HEAD_INCHES = 0.2, 0.75
Panel = dict[str, Comparison]  # by ablation, in the order of the table


def difference_plot(results: Results) -> Figure:
    """Draws the mean difference over seeds and its interval: a row per method of the students, a panel per modality.

    A cross: no interval, since there is one seed, or no difference varies.
    """
    baseline = results.params.report.baseline
    panels = {column: panel for column in results.main_columns if (panel := _panel(results, column))}
    if not panels:
        return message(f"No row of this table shares a task with {baseline}.")
    rows = _rows(results, panels)
    owner = next(iter(panels)).owner
    modalities = [m for m in MODALITY if any(column.modality == m for column in panels)]
    heights = [HEAD_INCHES + ROW_INCHES * len(names) for names in rows.values()]
    size = (2 + 2.6 * len(modalities), sum(heights) + 0.3)
    figure, axes = plt.subplots(
        len(rows), len(modalities), figsize=size, squeeze=False, sharey="row", height_ratios=heights
    )
    for (method, names), across in zip(rows.items(), axes, strict=True):
        for modality, axis in zip(modalities, across, strict=True):
            column = Column(owner, modality, method)
            drawn = panels.get(column)
            if drawn is None:
                axis.set_visible(False)
                continue
            _draw(axis, drawn, names, MODALITY[modality])
            axis.set_title(
                f"{modality}, {method_title(results, column)}",
                color=MODALITY[modality],
                fontweight="bold",
            )
        first = next(axis for axis in across if axis.get_visible())
        first.set_yticks(range(len(names)), names)
        first.tick_params(labelleft=True)
        first.set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(f"points above {baseline}, with {100 * CONFIDENCE:g} % interval", fontsize=9)
    words = f"Dots with lines, one per ablation, per task: difference to {baseline} in points and its interval."
    return described(figure, f"{words} The table above has the same numbers.")


def _panel(results: Results, column: Column) -> Panel:
    baseline = results.params.report.baseline
    compared = {name: comparison(results, name, column) for name in results.runs if name != baseline}
    return {name: one for name, one in compared.items() if one is not None and one.difference is not None}


def _rows(results: Results, panels: dict[Column, Panel]) -> dict[str, list[str]]:
    """Returns per method, in the order of the table, the ablations that it compares."""
    rows: dict[str, list[str]] = {}
    for method in dict.fromkeys(column.method for column in panels):
        compared = {name for column, panel in panels.items() if column.method == method for name in panel}
        rows[method] = [name for name in results.runs if name in compared]
    return rows


def _draw(axis: Axes, panel: Panel, names: list[str], colour: str) -> None:
    axis.axvline(0, color="black", linewidth=1)
    for position, name in enumerate(names):
        one = panel.get(name)
        if one is None or one.difference is None:
            continue
        if one.interval is None:
            axis.plot(one.difference, position, "x", color=colour, markersize=5)
            continue
        axis.plot(one.interval, (position, position), color=colour, linewidth=1.4)
        axis.plot(one.difference, position, "o", color=colour, markersize=4.5)
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)
