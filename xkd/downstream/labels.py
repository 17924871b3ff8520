"""Labels as arrays of targets."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.preprocessing import MultiLabelBinarizer

from xkd.data.labels import several
from xkd.data.listing import LABEL_SEPARATOR


def targets(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns which clip has which class: (clips, classes) booleans; labels that are no class are left out."""
    if not several(labels):
        numbers = pd.Index(classes).get_indexer(labels)
        return np.asarray(numbers[:, None] == np.arange(len(classes)))
    known = set(classes)
    table = MultiLabelBinarizer(classes=classes, sparse_output=True).fit_transform(
        [known & {*one.split(LABEL_SEPARATOR)} for one in labels]
    )
    return np.asarray(table.astype(bool).toarray())
