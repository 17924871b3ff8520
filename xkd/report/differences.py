"""differences.png: every ablation against the baseline, task by task, with intervals."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xkd.report.bars import method_title
from xkd.report.collect import Results
from xkd.report.statistics import LEVEL, Comparison
from xkd.report.style import MODALITY, described, message, plt
from xkd.report.table import comparison

ROW_INCHES, HEAD_INCHES = 0.2, 0.75
Panel = dict[str, Comparison]  # by ablation, in the order of the table


def difference_plot(results: Results) -> Figure:
    """One row of panels per task of the students, one panel per modality: mean difference over seeds and its interval.

    A filled dot: the interval leaves out zero. A cross: no interval, since there is one seed, or since differences do not vary.
    """
    baseline = results.params.report.baseline
    panels = {task: panel for task in results.main_tasks if (panel := _panel(results, task))}
    if not panels:
        return message(f"No row of this table shares a task with {baseline}.")
    rows = _rows(results, panels)
    owner = next(iter(panels)).split(".")[0]
    columns = [m for m in MODALITY if any(task.split(".")[1] == m for task in panels)]
    heights = [HEAD_INCHES + ROW_INCHES * len(names) for names in rows.values()]
    size = (2 + 2.6 * len(columns), sum(heights) + 0.3)
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=size, squeeze=False, sharey="row", height_ratios=heights
    )
    for (method, names), across in zip(rows.items(), axes):
        for modality, axis in zip(columns, across):
            drawn = panels.get(f"{owner}.{modality}.{method}")
            if drawn is None:
                axis.set_visible(False)
                continue
            _draw(axis, drawn, names, MODALITY[modality])
            axis.set_title(
                f"{modality}, {method_title(results, f'{owner}.{modality}.{method}')}",
                color=MODALITY[modality],
                fontweight="bold",
            )
        first = next(axis for axis in across if axis.get_visible())
        first.set_yticks(range(len(names)), names)
        first.tick_params(labelleft=True)
        first.set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(f"points above {baseline}, with {100 * LEVEL:g} % interval", fontsize=9)
    return described(figure, _words(panels, baseline))


def _panel(results: Results, task: str) -> Panel:
    baseline = results.params.report.baseline
    compared = {name: comparison(results, name, task) for name in results.runs if name != baseline}
    return {name: one for name, one in compared.items() if one is not None and one.difference is not None}


def _rows(results: Results, panels: dict[str, Panel]) -> dict[str, list[str]]:
    """Per method, in the order of the table: the ablations that it compares."""
    rows: dict[str, list[str]] = {}
    for method in dict.fromkeys(task.split(".")[2] for task in panels):
        compared = {name for task, panel in panels.items() if task.endswith(f".{method}") for name in panel}
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
        face = colour if _clear(one) else "white"
        axis.plot(one.difference, position, "o", color=colour, markerfacecolor=face, markersize=4.5)
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)


def _clear(one: Comparison) -> bool:
    """Whether zero lies outside the interval."""
    return one.interval is not None and not one.interval[0] <= 0 <= one.interval[1]


def _words(panels: dict[str, Panel], baseline: str) -> str:
    clear = [
        f"{task.removeprefix('student.')}: {name} {one.difference:+.1f}"
        for task, panel in panels.items()
        for name, one in panel.items()
        if _clear(one)
    ]
    told = (
        f"Intervals that leave out zero: {'; '.join(clear)}."
        if clear
        else "All intervals hold zero, or there are none."
    )
    return f"Dots with lines, one per ablation, per task: difference to {baseline} in points and its interval. {told}"
