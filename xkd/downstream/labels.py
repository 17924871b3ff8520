"""Labels as arrays: one per clip, or several joined by ";" (FSD50K, AudioSet)."""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import MultiLabelBinarizer

from xkd.data.listing import LABEL_SEPARATOR


def several(labels: np.ndarray) -> bool:
    """Returns whether any clip has more than one label."""
    return any(LABEL_SEPARATOR in label for label in labels)


def classes_of(labels: np.ndarray) -> np.ndarray:
    """Returns every label once, sorted."""
    return np.array(sorted({one for label in labels for one in label.split(LABEL_SEPARATOR)}))


def targets(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns which clip has which class: (clips, classes) booleans; labels that are no class are left out."""
    known = set(classes)
    table = MultiLabelBinarizer(classes=classes).fit_transform(
        [known & {*one.split(LABEL_SEPARATOR)} for one in labels]
    )
    return np.asarray(table, dtype=bool)
