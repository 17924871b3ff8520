"""Scores of classifiers and ranks of searches: the output of a protocol for test clips. All rates are percent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from xkd.data.labels import classes_of, several
from xkd.downstream.features import ClipOutputs
from xkd.downstream.labels import targets
from xkd.protocols import Column


@dataclass(frozen=True)
class Scores:
    """The scores that one classifier gives the test clips.

    Attributes:
        column: owner, modality and method.
        values: (clips, classes), higher is better.
        classes: (classes,) names of the columns.
        joined: whether training clips may have several labels.
        chosen: values chosen on training clips, such as C, by their key in the results.
        notes: sentences on what makes the figures mean less.
        draws: top1 of classifiers fitted on several draws of the training clips; `values` are then the shares of these
            classifiers that name each class.
    """

    column: Column
    values: np.ndarray
    classes: np.ndarray
    joined: bool = False
    chosen: dict[str, float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    draws: tuple[float, ...] = ()

    @property
    def modality(self) -> str:
        """The modality of the features: video, audio or both."""
        return self.column.modality

    @property
    def predicted(self) -> np.ndarray:
        """Best scored class of each clip (clips,)."""
        names: np.ndarray = self.classes[self.values.argmax(axis=1)]
        return names

    def right(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the clips (clips,) that count as recognised by top1, and by top5 of more than five classes.

        Clips with several labels have neither, and of several draws there is no one answer for each clip.
        """
        if self.draws:
            return {}
        ranks = () if self.joined or several(labels) else (1, 5) if len(self.classes) > 5 else (1,)
        return {f"top{k}": hits(self.values, self.classes, labels, k) for k in ranks}

    def overall(self, labels: np.ndarray) -> dict[str, float]:
        """Returns the metrics that are not shares of clips: map; of several draws the mean top1."""
        if self.draws:
            return {"top1": float(np.mean(self.draws))}
        return {"map": mean_average_precision(*self.rankings(labels))}

    def recognised(self, labels: np.ndarray) -> np.ndarray:
        """Returns for each clip (clips,) whether its class is scored best; of several draws, the share that says so."""
        if self.draws:
            share: np.ndarray = (targets(labels, self.classes) * self.values).sum(1)
            return share
        right: np.ndarray = self.predicted == labels
        return right

    def of(self, classes: np.ndarray) -> np.ndarray:
        """Returns the scores of these classes (clips, classes); NaN for a class that training never showed."""
        number = {name: column for column, name in enumerate(self.classes)}
        known = [column for column, name in enumerate(classes) if name in number]
        found = np.full((len(self.values), len(classes)), np.nan, dtype=self.values.dtype)
        found[:, known] = self.values[:, [number[classes[column]] for column in known]]
        return found

    def rankings(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns scores and truth (clips, classes) of all tested classes; one that training never showed scores 0."""
        tested = classes_of(labels)
        return np.nan_to_num(self.of(tested), nan=0.0), targets(labels, tested)

    def chance(self, labels: np.ndarray) -> float:
        """Returns the top-1 of guesses among equally frequent classes, or a random ranking's mAP for several labels."""
        if self.joined or several(labels):
            return 100 * float(targets(labels, classes_of(labels)).mean())
        return 100 * float(np.isin(labels, self.classes).mean()) / len(self.classes)


@dataclass(frozen=True)
class Retrieved:
    """The clips that each test clip retrieves from the other modality.

    Attributes:
        column: owner, modality of the query and method.
        ranks: (clips,) place of the first relevant clip, from 1 on.
        predicted: (clips,) id of the clip that comes first.
        relevant: share of all clips that is relevant to a query, mean over queries.
        chosen, notes: as of `Scores`.
    """

    column: Column
    ranks: np.ndarray
    predicted: np.ndarray
    relevant: float
    chosen: dict[str, float | str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    modality = "both"  # query and result vary

    def right(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the clips (clips,) with a relevant clip among the first 1, 5 and 10: recall1, recall5, recall10."""
        return {f"recall{k}": self.ranks <= k for k in (1, 5, 10)}

    def overall(self, labels: np.ndarray) -> dict[str, float]:
        """Returns the metrics that are not shares of clips: median_rank."""
        return {"median_rank": float(np.median(self.ranks))}

    def chance(self, labels: np.ndarray) -> float:
        """Returns recall at 1 of a random order."""
        return 100 * self.relevant


@dataclass(frozen=True)
class Judged:
    """Scores of a protocol for the test clips of one fold (None: of the column split)."""

    fold: str | None
    test: ClipOutputs
    scores: Sequence[Scores | Retrieved]


def hits(scores: np.ndarray, classes: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Returns for each clip whether its true class is among its k best scored ones.

    Args:
        scores: (clips, classes), higher is better.
        classes: (classes,) names of the columns.
        labels: (clips,) true names; one that is no column is never hit.
        k: how many guesses count.

    Returns:
        (clips,) booleans.
    """
    order = np.argsort(classes)
    place = order[np.searchsorted(classes, labels, sorter=order).clip(max=len(classes) - 1)]
    true = np.take_along_axis(scores, place[:, None], axis=1)
    # Of equal scores, the first column is the better guess.
    before = (scores > true).sum(axis=1) + ((scores == true) & (np.arange(len(classes)) < place[:, None])).sum(axis=1)
    hit: np.ndarray = (before < k) & (np.asarray(classes)[place] == labels)
    return hit


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Returns the average precision of each class's ranking of the clips, averaged over classes (macro).

    Args:
        scores: (clips, classes), higher is better.
        targets: (clips, classes) booleans; several classes of a clip may be true.

    Classes without a true clip have no ranking to judge and are left out; 0 if that leaves none.
    """
    each = class_average_precisions(scores, targets)
    return 100 * float(np.nanmean(each)) if len(each) > np.isnan(each).sum() else 0.0


def class_average_precisions(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Computes the average precision of each class's ranking (classes,) in 0..1; NaN for a class without a true clip.

    It is the mean, over the class's clips, of the share of its clips among all that score at least as much: O(clips *
    classes * log clips).

    Args:
        scores, targets: (clips, classes) as for `mean_average_precision`.
    """
    found = np.full(targets.shape[1], np.nan)
    for column in np.flatnonzero(targets.any(axis=0)):
        every = np.sort(scores[:, column])
        own = np.sort(scores[targets[:, column], column])
        seen, right = (len(part) - np.searchsorted(part, own) for part in (every, own))
        found[column] = (right / seen).mean()
    return found
