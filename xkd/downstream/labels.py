"""Labels as arrays of targets."""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import MultiLabelBinarizer

from xkd.data.listing import LABEL_SEPARATOR


def targets(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns which clip has which class: (clips, classes) booleans; labels that are no class are left out."""
    known = set(classes)
    table = MultiLabelBinarizer(classes=classes).fit_transform(
        [known & {*one.split(LABEL_SEPARATOR)} for one in labels]
    )
    return np.asarray(table, dtype=bool)
