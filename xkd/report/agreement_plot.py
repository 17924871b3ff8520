"""paper-agreement.png: each ordering that the paper claims, with the paper's differences and ours."""

from __future__ import annotations

from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from xkd.report.agreement import AGREES, CANNOT_TELL, DISAGREES, NOT_MEASURED, Finding, counts, findings, measured
from xkd.report.collect import Results
from xkd.report.style import PALETTE, YARDSTICK, described, plt
from xkd.report.verdicts import region_of

COLOURS = {AGREES: PALETTE[2], DISAGREES: PALETTE[1], CANNOT_TELL: PALETTE[6], NOT_MEASURED: YARDSTICK}
MARKS = {AGREES: "o", DISAGREES: "X", CANNOT_TELL: "s"}
LINE_INCHES = 0.21


def agreement_plot(results: Results) -> Figure:
    """Draws a line for each finding: diamonds for the paper's differences, a mark and its interval for ours.

    A grey band is where a claim that two rows are equal puts the difference. Lines are grouped by table of the paper.
    """
    found, labels, lines = findings(results), [], []
    for title, group in groupby(found, key=lambda one: one.claim.table):
        labels += [f"table {title}", *map(_label, members := list(group))]
        lines += [None, *members]
    figure, axis = plt.subplots(figsize=(8.5, 1.2 + LINE_INCHES * len(lines)))
    axis.axvline(0, color="black", linewidth=1)
    axis.use_sticky_edges = False  # bands at the edge leave a margin, too
    for place, one in enumerate(lines):
        if one is not None:
            _draw(axis, place, one)
    axis.set_xlim(*_limits(axis, found))
    axis.set_yticks(range(len(labels)), labels)
    for label, one in zip(axis.get_yticklabels(), lines, strict=True):
        label.set(fontweight="bold" if one is None else "normal", color="black" if one is None else COLOURS[one.word])
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.grid(axis="x")
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("points between the two rows")
    figure.legend(handles=_legend(), loc="outside lower center", ncols=4)
    return described(figure, _words(found))


def _limits(axis: Axes, found: list[Finding]) -> tuple[float, float]:
    """Returns what the axis shows: all differences, and of long intervals so much that the others stay readable."""
    sizes = [size for one in found for size in one.sizes.values()]
    sizes += [one.evidence.difference or 0.0 for one in found if one.evidence]
    low, high = axis.get_xlim()
    room = 0.5 * (max(sizes) - min(sizes))
    return max(low, min(sizes) - room), min(high, max(sizes) + room)


def _label(one: Finding) -> str:
    return f"{one.claim}{f', {measured(next(iter(one.sizes)))}' if one.same else ''}"


def _draw(axis: Axes, place: int, one: Finding) -> None:
    low, high = region_of(one.direction)
    if one.claim.expects == "equal":
        axis.barh(place, high - low, left=low, height=0.9, color="#E8E8E8")
    sizes = list(one.sizes.values())
    axis.plot(sizes, [place] * len(sizes), "D", color=YARDSTICK, markersize=3.5, fillstyle="none")
    evidence = one.evidence
    if evidence is None or evidence.difference is None:
        return
    colour = COLOURS[one.word]
    if evidence.interval is not None:
        axis.plot(evidence.interval, (place, place), color=colour, linewidth=1.6)
    axis.plot(evidence.difference, place, MARKS[one.word], color=colour, markersize=5)


def _legend() -> list[Line2D]:
    paper = Line2D([], [], linestyle="", marker="D", fillstyle="none", color=YARDSTICK, markersize=4, label="the paper")
    ours = [
        Line2D([], [], marker=mark, color=COLOURS[word], markersize=5, label=f"here: {word}")
        for word, mark in MARKS.items()
    ]
    return [paper, *ours]


def _words(found: list[Finding]) -> str:
    told = [
        f"{word}: {'; '.join(_label(one) for one in found if one.word == word)}."
        for word in (AGREES, DISAGREES)
        if any(one.word == word for one in found)
    ]
    return " ".join([f"Orderings that the paper claims, one a line, and this table: {counts(found)}.", *told])
