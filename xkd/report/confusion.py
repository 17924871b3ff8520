"""confusion.png: which labels the probes take for which."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from xkd import registry
from xkd.params import tasks_of
from xkd.protocols import Column
from xkd.report.arrays import FULL_METHOD
from xkd.report.collect import Results
from xkd.report.style import described, message, plt
from xkd.runs.evaluations import read_confusions
from xkd.settings import MODALITY_NAMES

NAMED, NUMBERED = 60, 15  # labels: more have no names, or no numbers
WORST = 3
Matrix = tuple[list[str], np.ndarray]  # labels, and counts: true ones down, recognised ones across


def confusion_matrices(results: Results) -> Figure:
    """Draws the students of the full method and of the baseline, all seeds together; percent of each true label."""
    shown = {name: found for name in _rows(results) if (found := _matrices(results, name))}
    if not shown:
        return message("The evaluations of this table hold no confusion matrices.")
    modalities = list(dict.fromkeys(modality for found in shown.values() for modality in found))
    labels = max(len(names) for found in shown.values() for names, _ in found.values())
    side = min(6.0, 1.6 + 0.3 * min(labels, NUMBERED))
    size = (side * len(modalities), (side - 0.1) * len(shown) + 0.3)
    figure, axes = plt.subplots(len(shown), len(modalities), figsize=size, squeeze=False)
    images, words = [], []
    for row, (name, found) in zip(axes, shown.items(), strict=True):
        for axis, modality in zip(row, modalities, strict=True):
            if modality not in found:
                axis.set_axis_off()
                continue
            names, counts = found[modality]
            images.append(_panel(axis, names, counts))
            axis.set_title(f"{name}, {modality}")
            words.append(f"{name} {modality}: {_worst(names, counts)}")
        row[0].set_ylabel("true label")
    for axis in axes[-1]:
        axis.set_xlabel("recognised as")
    figure.colorbar(images[-1], ax=axes, label="% of the true label", shrink=0.6)
    return described(
        figure,
        f"Confusion matrices, true labels down, recognised ones across. Most frequent errors. {'; '.join(words)}.",
    )


def _rows(results: Results) -> list[str]:
    wanted = (FULL_METHOD, results.params.report.baseline)
    return [name for name in wanted if name in results.runs] or list(results.runs)[:1]


def _matrices(results: Results, ablation: str) -> dict[str, Matrix]:
    """Returns per modality of the student the matrix of the first task and method on the run's data, over all seeds."""
    methods = [next(iter(protocol.methods)) for protocol in registry.protocols.values()]
    found: dict[str, Matrix] = {}
    for task in tasks_of(results.params, ablation):
        if results.params.tasks[task].dataset:
            continue
        pairs = pd.concat([read_confusions(run.evaluations / f"{task}.json") for run in results.runs[ablation]])
        for modality, method in product((*MODALITY_NAMES, "both"), methods):
            rows = pairs[pairs["method"] == str(Column("student", modality, method))]
            if modality not in found and len(rows):
                found[modality] = _matrix(rows)
    return found


def _matrix(pairs: pd.DataFrame) -> Matrix:
    labels = sorted({*pairs["label"], *pairs["predicted"]})
    counts = pairs.groupby(["label", "predicted"])["clips"].sum().unstack(fill_value=0)
    return labels, counts.reindex(index=labels, columns=labels, fill_value=0).to_numpy()


def _panel(axis: Axes, names: list[str], counts: np.ndarray) -> AxesImage:
    percent = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(percent, cmap="Greys", vmin=0, vmax=100)
    few = len(names) <= NAMED
    axis.set_xticks(range(len(names)) if few else [], names if few else [], rotation=90)
    axis.set_yticks(range(len(names)) if few else [], names if few else [])
    axis.tick_params(length=0, labelsize=8)
    axis.spines[:].set_visible(False)
    if len(names) <= NUMBERED:
        for (row, column), value in np.ndenumerate(percent):
            if value >= 0.5:
                colour = "white" if value > 55 else "black"
                axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    return image


def _worst(names: list[str], counts: np.ndarray) -> str:
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    places = np.argsort(-wrong, axis=None, kind="stable")[:WORST]
    pairs = [np.unravel_index(place, wrong.shape) for place in places]
    return ", ".join(
        f"{names[true]} as {names[seen]} {wrong[true, seen]} times" for true, seen in pairs if wrong[true, seen]
    )
