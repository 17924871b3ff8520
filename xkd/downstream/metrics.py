"""Accuracy, mean average precision, and how far they could move with other test items.

All rates are percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score

from xkd.downstream.features import Clips
from xkd.downstream.labels import several, targets

RESAMPLES = 1000
DECIMALS = 4


@dataclass(frozen=True)
class Scores:
    """What one classifier says about the test clips.

    Attributes:
        name: owner, modality and method, e.g. "student.video.linear".
        values: (clips, classes), higher is better.
        classes: (classes,) names of the columns.
    """

    name: str
    values: np.ndarray
    classes: np.ndarray

    @property
    def modality(self) -> str:
        """video, audio or both."""
        return self.name.split(".")[1]

    @property
    def predicted(self) -> np.ndarray:
        """(clips,) best scored class."""
        return self.classes[self.values.argmax(axis=1)]


def summarise(scores: Sequence[Scores], clips: Clips) -> tuple[dict[str, float], dict[str, list[float]]]:
    """All metrics of all classifiers, and 95 % intervals of their accuracies, keyed `<name>.<metric>`.

    Of clips with several labels only mean average precision means something.

    Args:
        scores: of all classifiers.
        clips: the test clips they are about.
    """
    values, correct = {}, {}
    for one in scores:
        ranks = (1, 5) if len(one.classes) > 5 else (1,)
        for k in () if several(clips.labels) else ranks:
            correct[f"{one.name}.top{k}"] = hits(one.values, one.classes, clips.labels, k)
            values[f"{one.name}.top{k}"] = 100 * correct[f"{one.name}.top{k}"].mean()
        values[f"{one.name}.map"] = mean_average_precision(one.values, targets(clips.labels, one.classes))
    spans = {}
    for modality in dict.fromkeys(key.split(".")[1] for key in correct):
        keys = [key for key in correct if key.split(".")[1] == modality]
        spread = intervals(np.stack([correct[key] for key in keys], axis=1), clips.items_of(modality))
        spans |= dict(zip(keys, spread.round(DECIMALS).tolist(), strict=True))
    return {key: round(float(value), DECIMALS) for key, value in values.items()}, {key: spans[key] for key in correct}


def per_class(scores: Sequence[Scores], clips: Clips) -> dict[str, dict[str, float]]:
    """Per classifier and label the percentage of the label's test clips that were recognised; none of several labels."""
    if several(clips.labels):
        return {}
    labels = np.unique(clips.labels)
    return {
        one.name: {
            str(label): round(100 * float((one.predicted[clips.labels == label] == label).mean()), DECIMALS)
            for label in labels
        }
        for one in scores
    }


def hits(scores: np.ndarray, classes: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Whether the true class of each clip is among its k best scored ones.

    Args:
        scores: (clips, classes), higher is better.
        classes: (classes,) names of the columns.
        labels: (clips,) true names; one that is no column is never hit.
        k: how many guesses count.

    Returns:
        (clips,) booleans.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return (np.asarray(classes)[best] == np.asarray(labels)[:, None]).any(axis=1)


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> float:
    """Average precision of each class's ranking of the clips, averaged over classes (macro).

    Args:
        scores: (clips, classes), higher is better.
        targets: (clips, classes) booleans; several classes of a clip may be true.

    Classes without a true clip have no ranking to judge and are left out; 0 if that leaves none.
    """
    present = targets.any(axis=0)
    if not present.any():
        return 0.0
    return 100 * float(average_precision_score(targets[:, present], scores[:, present], average="macro"))


def intervals(correct: np.ndarray, items: Sequence[np.ndarray], seed: int = 0, level: float = 0.95) -> np.ndarray:
    """Bootstrap interval of accuracies, resampling the items that clips are made of.

    Clips of one scan or one recording stand or fall together: a thousand clips of ten scans say
    little about an eleventh. Items are therefore drawn with replacement and a clip counts as often
    as its item. A clip made of two items (a picture and a sound) counts as the product of both
    draws, which is the bootstrap of crossed factors.

    Args:
        correct: (clips, metrics) of 0 and 1.
        items: one (clips,) array of item names per factor.
        seed: of the draws.
        level: share of resamples inside the interval.

    Returns:
        (metrics, 2): low and high, percent.
    """
    generator = np.random.default_rng(seed)
    weights = np.ones((RESAMPLES, len(correct)), dtype=np.float32)
    for names in items:
        unique, index = np.unique(names, return_inverse=True)
        draws = generator.multinomial(len(unique), np.full(len(unique), 1 / len(unique)), size=RESAMPLES)
        weights *= draws.astype(np.float32)[:, index]
    totals = weights.sum(axis=1)
    kept = totals > 0  # with very few crossed items a resample can hold no clip at all
    rates = 100 * (weights[kept] @ correct.astype(np.float32)) / totals[kept, None]
    return np.quantile(rates.astype(float), [(1 - level) / 2, (1 + level) / 2], axis=0).T
