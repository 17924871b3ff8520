"""Draws embeddings.png: held-out clips in the plane of their two main directions, before and after training."""

from __future__ import annotations

from typing import Any, NamedTuple

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType
from sklearn.decomposition import PCA

from xkd.modalities import MODALITIES
from xkd.params import recipe
from xkd.report.arrays import FULL_METHOD, Arrays
from xkd.report.collect import Results, Run
from xkd.report.style import described, message, plt
from xkd.runs.records import read_arrays

MOMENTS = {"before": "before training", "after": "after training"}
KEYS = [f"{modality}_{moment}" for modality in MODALITIES for moment in MOMENTS]
COLOURED = 10  # labels; the others are grey
ROOM = (0.075, 0.03)  # shares of the axes that a name needs for itself, across and down


class Points(NamedTuple):
    """Says how clips of a modality are drawn: their points, and properties of the labels' names."""

    marker: str
    filled: bool
    text: dict[str, Any]


DRAWN_AS = dict(
    zip(MODALITIES, (Points("o", True, {"fontweight": "bold"}), Points("^", False, {"style": "italic"})), strict=True)
)


def embedding_map(results: Results) -> Figure:
    """Draws logits of the students' projection heads; beside the full method a row that does not align them."""
    shown = {run.ablation: (run, arrays) for run, arrays in _shown(results)}
    if not shown:
        return message("No ablation of this table has projection heads.")
    figure, axes = plt.subplots(len(shown), 2, figsize=(11, 0.5 + 4.7 * len(shown)), squeeze=False)
    words = []
    for row, (run, arrays) in zip(axes, shown.values(), strict=True):
        aligns = "aligned" if recipe(results.params, run.ablation).objective.alignment else "not aligned"
        colours = _colours(arrays["labels"])
        for axis, (moment, title) in zip(row, MOMENTS.items(), strict=True):
            gap = _panel(axis, arrays, moment, colours)
            axis.set_title(f"{run.ablation} ({aligns}), {title}")
            words.append(f"{run.ablation} {title}: {gap:.1f}")
    _legend(figure, colours)
    return described(
        figure,
        f"Scatter plots of {len(arrays['ids'])} held-out clips, video as filled circles and audio as hollow "
        "triangles, coloured and named by label. Distance between the modalities' means over the mean spread of a "
        f"modality, in all dimensions. {'; '.join(words)}.",
    )


def _shown(results: Results) -> list[tuple[Run, Arrays]]:
    """Finds first seeds of the full method, or else any row with heads, and of a row that differs in not aligning."""
    names = sorted(results.runs, key=lambda name: (results.elsewhere(name), name != FULL_METHOD))
    runs = [results.runs[name][0] for name in names]
    found: list[tuple[bool, Run, Arrays]] = []
    for run in runs:
        aligns = bool(recipe(results.params, run.ablation).objective.alignment)
        if any(aligns == known for known, _, _ in found):
            continue
        arrays = read_arrays(run.folder / "embeddings.npz")
        if all(key in arrays for key in KEYS):
            found.append((aligns, run, arrays))
    return [(run, arrays) for _, run, arrays in found]


def principal_plane(points_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes coordinates (N, 2) along the two directions of largest variance, and their shares of the variance (2,).

    A direction's sign is arbitrary; here its largest weight is positive.
    """
    analysis = PCA(2, svd_solver="full")
    return analysis.fit_transform(points_ND), analysis.explained_variance_ratio_


def _panel(axis: Axes, arrays: Arrays, moment: str, colours: dict[str, ColorType]) -> float:
    """Draws one moment; returns how far the modalities' means lie apart, over the mean deviation around them."""
    both = {m: arrays[f"{m}_{moment}"].astype(np.float32) for m in DRAWN_AS}
    labels = arrays["labels"]
    plane, shares = principal_plane(np.concatenate(list(both.values())))
    for look, points in zip(DRAWN_AS.values(), np.split(plane, 2), strict=True):
        for label in dict.fromkeys(labels):
            colour, own = colours.get(label, "#BBBBBB"), labels == label
            face = colour if look.filled else "none"
            across, up = points[own].T
            axis.scatter(
                across, up, s=15, marker=look.marker, facecolors=face, edgecolors=colour, linewidths=0.8, alpha=0.65
            )
    if len(set(labels)) <= COLOURED:
        _name_labels(axis, plane, labels)
    axis.set_xlabel(f"first direction ({shares[0]:.0%} of the variance)")
    axis.set_ylabel(f"second ({shares[1]:.0%})")
    axis.set(xticks=[], yticks=[])
    means = [points.mean(0) for points in both.values()]
    spread = np.mean(
        [np.linalg.norm(points - mean, axis=1).mean() for points, mean in zip(both.values(), means, strict=True)]
    )
    return float(np.linalg.norm(means[0] - means[1]) / spread)


def _name_labels(axis: Axes, plane: np.ndarray, labels: np.ndarray) -> None:
    """Writes each label at the median of its clips, if there is room: colour alone tells nothing in black and white."""
    taken: list[np.ndarray] = []
    for look, points in zip(DRAWN_AS.values(), np.split(plane, 2), strict=True):
        for label in dict.fromkeys(labels):
            place = np.median(points[labels == label], axis=0)
            apart = [np.abs(place - other) / np.ptp(plane, axis=0) for other in taken]
            if all((gap > ROOM).any() for gap in apart):
                taken.append(place)
                outline = [effects.withStroke(linewidth=2.2, foreground="white")]
                axis.text(
                    place[0], place[1], label, ha="center", va="center", fontsize=8.5, path_effects=outline, **look.text
                )


def _colours(labels: np.ndarray) -> dict[str, ColorType]:
    names, counts = np.unique(labels, return_counts=True)
    common = sorted(names[np.argsort(-counts, kind="stable")][:COLOURED])
    return {name: plt.get_cmap("tab10")(place) for place, name in enumerate(common)}


def _legend(figure: Figure, colours: dict[str, ColorType]) -> None:
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=look.marker,
            color="black",
            markerfacecolor="black" if look.filled else "none",
            label=modality,
        )
        for modality, look in DRAWN_AS.items()
    ]
    handles += [
        Line2D([], [], linestyle="", marker="s", color=colour, label=label[:24]) for label, colour in colours.items()
    ]
    figure.legend(handles=handles, loc="outside right upper")
