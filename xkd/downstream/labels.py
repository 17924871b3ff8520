"""Labels as arrays: one per clip, or several joined by ";" (FSD50K, AudioSet)."""

from __future__ import annotations

import numpy as np

from xkd.data.listing import LABEL_SEPARATOR


def several(labels: np.ndarray) -> bool:
    """Whether any clip has more than one label."""
    return any(LABEL_SEPARATOR in label for label in labels)


def classes_of(labels: np.ndarray) -> np.ndarray:
    """Every label, once, sorted."""
    return np.array(sorted({one for label in labels for one in label.split(LABEL_SEPARATOR)}))


def targets(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Which clip has which class: (clips, classes) booleans; labels that are no class are left out."""
    number = {name: column for column, name in enumerate(classes)}
    table = np.zeros((len(labels), len(classes)), dtype=bool)
    for row, label in enumerate(labels):
        table[row, [number[one] for one in label.split(LABEL_SEPARATOR) if one in number]] = True
    return table
