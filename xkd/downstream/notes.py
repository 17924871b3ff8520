"""Notes on what makes a figure mean less than it seems to, as sentences."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning

from xkd.data.labels import classes_of, several
from xkd.data.listing import LABEL_SEPARATOR
from xkd.downstream.scores import Retrieved, Scores

NAMED = 5  # labels that a sentence names
RECALL = 10  # length of the longest list of retrieved clips
SAME = 1e-6  # of the largest score: sums of equal features in another order differ by as much


def of_labels(train: np.ndarray, test: np.ndarray) -> list[str]:
    """Notes labels that only one side has, and test clips that all have the same label.

    Args:
        train, test: (clips,) labels; several of a clip are joined.
    """
    found = []
    if len(np.unique(test)) == 1:
        found.append(f"all test clips have the label '{test[0]}': a constant guess is right on every clip")
    trained, tested = set(classes_of(train)), set(classes_of(test))
    if unknown := tested - trained:
        clips = sum(not unknown.isdisjoint(label.split(LABEL_SEPARATOR)) for label in test)
        end = "their average precision is that of chance" if several(test) or several(train) else "they count as wrong"
        found.append(
            f"{clips} of {len(test)} test clips have a label that no training clip has ({_named(unknown)}); {end}"
        )
    if untested := trained - tested:
        found.append(f"{len(untested)} of {len(trained)} labels of training are never tested ({_named(untested)})")
    return found


def of_clips(train: pd.DataFrame, test: pd.DataFrame, modalities: Iterable[str]) -> list[str]:
    """Notes what training and test clips share, and test clips that are all the same.

    Args:
        train, test: the manifest's rows.
        modalities: those that are judged.
    """
    found = []
    for column, name in [*((f"{m}_source", f"{m} source") for m in modalities), ("digest", "content")]:
        if column not in test:
            continue
        sources = set(train[column]) - {""}
        clips = int(test[column].isin(sources).sum())
        if clips:
            found.append(
                f"{clips} of {len(test)} test clips have the {name} of a training clip: figures may be too high"
            )
        if (names := test[column].unique()).size == 1 and names[0] != "" and len(test) > 1:
            found.append(
                f"all test clips have the same {name}: intervals are too narrow, or left out where nothing else varies"
            )
    if len(test) == 1:
        found.append("there is 1 test clip: figures are all or nothing, and have no intervals")
    return found


def of_scores(one: Scores | Retrieved) -> list[str]:
    """Notes a classifier or a search whose answer is the same for all test clips, as from features that are equal."""
    if isinstance(one, Retrieved):
        same, answer = len(set(one.predicted.tolist())) == 1, f"finds the clip '{one.predicted[0]}' for every query"
    else:
        spread, largest = np.ptp(one.values, axis=0).max(), np.abs(one.values).max()
        same, answer = bool(spread <= SAME * largest), "gives all test clips the same scores"
    if not same or len(one.predicted) == 1:
        return []
    return [f"{one.column}: {answer}: the encoder, or the classifier, tells no clip from another"]


def over_folds(folds: dict[str, list[str]]) -> list[str]:
    """Returns the sentences of all folds, each once, with the folds that it is about."""
    about: dict[str, list[str]] = {}
    for fold, sentences in folds.items():
        for sentence in sentences:
            about.setdefault(sentence, []).append(fold)
    return [f"fold{'s' if len(of) > 1 else ''} {', '.join(of)}: {sentence}" for sentence, of in about.items()]


def of_gallery(clips: int) -> list[str]:
    """Notes a search among so few clips that it cannot fail."""
    if clips > RECALL:
        return []
    return [f"retrieval has {clips} test clips to search: recall at {RECALL} is 100 % whatever the encoders"]


def of_neighbours(name: str, neighbours: int, examples: int) -> list[str]:
    """Notes nearest neighbours that are all training examples."""
    if examples > neighbours:
        return []
    return [f"{name}: the {neighbours} nearest neighbours are all {examples} training examples, whatever the test clip"]


def of_shots(shots: int, labels: np.ndarray) -> list[str]:
    """Notes classes with fewer training clips than are drawn of each; `labels` (clips,) are those of training."""
    names, counts = np.unique(labels, return_counts=True)
    few = names[counts < shots]
    if not len(few):
        return []
    return [
        f"{shots}_shot: {len(few)} of {len(names)} labels have fewer than {shots} training clips ({_named(few)}); all "
        "of theirs are used"
    ]


@contextmanager
def of_solver(name: str, key: str) -> Iterator[list[str]]:
    """Yields a list that gets a note if a solver of scikit-learn stops before it has converged.

    Args:
        name: of the classifier.
        key: the setting to change.
    """
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for one in caught:
        if not issubclass(one.category, ConvergenceWarning):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        elif not found:
            found.append(f"{name}: the solver stopped before it converged; see {key}")


def _named(labels: Iterable[str]) -> str:
    first = sorted(labels)
    return ", ".join(first[:NAMED]) + (f" and {len(first) - NAMED} more" if len(first) > NAMED else "")
