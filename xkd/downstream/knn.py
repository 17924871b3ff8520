"""Nearest neighbours of frozen features, which need no training: O(clips * test clips * D), however it is done."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from torch import Tensor

from xkd.data.labels import classes_of, several
from xkd.device import device
from xkd.downstream.labels import targets

LARGE = 2 * 10**10  # clips * test clips * D, from which on a matrix product on the device is worth its while
SIMILARITIES = 2**26  # in memory at once


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
    neighbours = min(neighbours, len(train))
    joined = several(labels)
    if train.size * len(test) > LARGE:
        classes = classes_of(labels)
        return _votes(train, targets(labels, classes), test, neighbours), classes
    if joined:
        classes = classes_of(labels)
        shares = KNeighborsRegressor(neighbours, metric="cosine", algorithm="brute")
        return shares.fit(train, targets(labels, classes).astype(float)).predict(test), classes
    model = KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute")
    model.fit(train, labels)
    return model.predict_proba(test), model.classes_


def _votes(train: np.ndarray, has: np.ndarray, test: np.ndarray, neighbours: int) -> np.ndarray:
    """Returns the shares of the votes (test clips, classes), with one matrix product for each block of test clips."""
    gallery, has_class = _unit(train), torch.from_numpy(has).to(device())
    shares = []
    for part in np.array_split(test, -(-len(test) * len(train) // SIMILARITIES)):
        nearest = (_unit(part) @ gallery.T).topk(neighbours, dim=1, sorted=False).indices
        shares.append(has_class[nearest].sum(1, dtype=torch.float64).cpu() / neighbours)
    found: np.ndarray = torch.cat(shares).numpy()
    return found


def _unit(features: np.ndarray) -> Tensor:
    return F.normalize(torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(device()))
