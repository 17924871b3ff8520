"""Nearest neighbours of frozen features, which need no training."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from xkd.data.labels import classes_of, several
from xkd.downstream.labels import targets


def classify(train: np.ndarray, labels: np.ndarray, test: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Lets the training clips that are nearest to each test clip vote, by cosine similarity.

    Args:
        train: (clips, D) features.
        labels: (clips,).
        test: (test clips, D) features.
        neighbours: how many vote; all of them if there are fewer training clips.

    Returns:
        Shares of the votes (test clips, classes), class names (classes,).
    """
    if several(labels):
        classes = classes_of(labels)
        shares = KNeighborsRegressor(min(neighbours, len(train)), metric="cosine", algorithm="brute")
        return shares.fit(train, targets(labels, classes).astype(float)).predict(test), classes
    model = KNeighborsClassifier(min(neighbours, len(train)), metric="cosine", algorithm="brute")
    model.fit(train, labels)
    return model.predict_proba(test), model.classes_
