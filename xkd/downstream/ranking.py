"""Ranks the clips of one modality by their similarity to a clip of the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from sklearn.preprocessing import normalize

from xkd.data.labels import classes_of, several
from xkd.downstream.labels import targets

QUERIES, SIMILARITIES = 1024, 2**25  # at most so many compared with the whole gallery at once: bounds memory
Relevant = Callable[[slice], np.ndarray]  # for some queries, which clips (queries, clips) are relevant


def embeddings(train: Iterable[np.ndarray], test: Iterable[np.ndarray]) -> np.ndarray:
    """Returns outputs of one modality's network as unit vectors around the modality's mean.

    Distillation compares modalities in this way: a teacher's outputs are centred before they are targets.

    Args:
        train: parts (clips, views, D) of the outputs of which the mean is taken.
        test: parts (test clips, views, D).

    Returns:
        (test clips, D), views averaged.
    """
    sums, counts = zip(
        *((part.sum((0, 1), dtype=np.float64), len(part) * part.shape[1]) for part in train), strict=True
    )
    return unit_vectors(np.concatenate([part.mean(1, dtype=np.float64) for part in test]), sum(sums) / sum(counts))


def unit_vectors(outputs_ND: np.ndarray, mean_D: np.ndarray) -> np.ndarray:
    """Returns the directions (N, D) of outputs from their modality's mean.

    What all clips of a modality share says nothing about one of them, and would make all cosines alike.
    """
    directions_ND: np.ndarray = normalize(outputs_ND - mean_D)
    return directions_ND


def relevant_clips(ids: np.ndarray, labels: np.ndarray, relevant: str) -> Relevant:
    """Returns the function that says which clips are relevant to a query.

    Args:
        ids, labels: (clips,).
        relevant: "clip": the clip itself; "label": any clip with a label in common.
    """
    if relevant == "clip" or not several(labels):
        numbers = np.unique(ids if relevant == "clip" else labels, return_inverse=True)[1].astype(np.int32)
        return lambda queries: numbers[queries, None] == numbers
    has = targets(labels, classes_of(labels)).astype(np.float32)
    return lambda queries: has[queries] @ has.T > 0


def retrieve(queries: np.ndarray, gallery: np.ndarray, relevant: Relevant) -> tuple[np.ndarray, np.ndarray]:
    """Ranks the gallery by cosine similarity for each query, some queries at a time: O(clips^2 * D).

    Args:
        queries: (clips, D) unit vectors of one modality.
        gallery: (clips, D) unit vectors of the other, of the same clips in the same order.
        relevant: of `relevant_clips`.

    Returns:
        Place of the first relevant clip (clips,), from 1 on; number of the clip that comes first (clips,).
    """
    ranks, nearest = [], []
    for part in _parts(len(queries)):
        similarity, found = queries[part] @ gallery.T, relevant(part)
        ranks.append(places(similarity, found))
        nearest.append(similarity.argmax(1))
    return np.concatenate(ranks), np.concatenate(nearest)


def relevant_share(clips: int, relevant: Relevant) -> float:
    """Returns the share of clips that is relevant to a query, mean over queries."""
    return sum(int(relevant(part).sum()) for part in _parts(clips)) / clips**2


def _parts(clips: int) -> Iterator[slice]:
    """Yields the queries that are compared with all clips at once."""
    size = max(1, min(QUERIES, SIMILARITIES // clips))
    return (slice(start, min(start + size, clips)) for start in range(0, clips, size))


def places(similarity_NM: np.ndarray, found_NM: np.ndarray) -> np.ndarray:
    """Returns the place (N,) of each query's first relevant clip, from 1 on.

    Equal similarities count against the query: outputs that are all alike find nothing.

    Args:
        similarity_NM: of every query to every clip of the gallery.
        found_NM: which clips are relevant, at least one per query.
    """
    best = np.where(found_NM, similarity_NM, -np.inf).max(1, keepdims=True)
    before: np.ndarray = ((similarity_NM >= best) & ~found_NM).sum(1)
    return 1 + before
