"""Accuracy, mean average precision, and how far they could move with other test items.

All rates are percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from xkd.downstream.features import Clips
from xkd.downstream.labels import classes_of, several, targets

RESAMPLES = 1000
RANKED_RESAMPLES = 200  # of rankings, which have to be gone through again for each class and resample
DECIMALS = 4


@dataclass(frozen=True)
class Scores:
    """What one classifier says about the test clips.

    Attributes:
        name: owner, modality and method, e.g. "student.video.linear".
        values: (clips, classes), higher is better.
        classes: (classes,) names of the columns.
        joined: whether clips of training may have several labels.
    """

    name: str
    values: np.ndarray
    classes: np.ndarray
    joined: bool = False

    @property
    def modality(self) -> str:
        """What it sees: video, audio or both."""
        return self.name.split(".")[1]

    @property
    def predicted(self) -> np.ndarray:
        """(clips,) best scored class."""
        names: np.ndarray = self.classes[self.values.argmax(axis=1)]
        return names

    def right(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Which clips (clips,) count as recognised: top1, and top5 of more than five classes; none of several labels."""
        ranks = () if self.joined or several(labels) else (1, 5) if len(self.classes) > 5 else (1,)
        return {f"top{k}": hits(self.values, self.classes, labels, k) for k in ranks}

    def overall(self, labels: np.ndarray) -> dict[str, float]:
        """Metrics that are no share of clips: map."""
        return {"map": mean_average_precision(*self.rankings(labels))}

    def of(self, classes: np.ndarray) -> np.ndarray:
        """Scores of these classes (clips, classes); NaN for one that training never showed."""
        number = {name: column for column, name in enumerate(self.classes)}
        known = [column for column, name in enumerate(classes) if name in number]
        found = np.full((len(self.values), len(classes)), np.nan, dtype=self.values.dtype)
        found[:, known] = self.values[:, [number[classes[column]] for column in known]]
        return found

    def rankings(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores and truth (clips, classes) of all classes that are tested; one that training never showed scores 0 always."""
        tested = classes_of(labels)
        return np.nan_to_num(self.of(tested), nan=0.0), targets(labels, tested)

    def chance(self, labels: np.ndarray) -> float:
        """What guessing scores: top-1 with equally frequent classes, or with several labels mAP of a random ranking."""
        if self.joined or several(labels):
            return 100 * float(targets(labels, classes_of(labels)).mean())
        return 100 * float(np.isin(labels, self.classes).mean()) / len(self.classes)


@dataclass(frozen=True)
class Retrieved:
    """What comes back from the other modality for each test clip.

    Attributes:
        name: owner, modality of the query and method, e.g. "student.video.retrieval".
        ranks: (clips,) place of the first relevant clip, from 1 on.
        predicted: (clips,) id of the clip that comes first.
        relevant: share of all clips that a query may find, mean over queries.
    """

    name: str
    ranks: np.ndarray
    predicted: np.ndarray
    relevant: float
    modality = "both"  # what is asked and what is found vary

    def right(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Which clips (clips,) find something relevant among the first 1, 5 and 10: recall1, recall5, recall10."""
        return {f"recall{k}": self.ranks <= k for k in (1, 5, 10)}

    def overall(self, labels: np.ndarray) -> dict[str, float]:
        """Metrics that are no share of clips: median_rank."""
        return {"median_rank": float(np.median(self.ranks))}

    def chance(self, labels: np.ndarray) -> float:
        """Recall at 1 of a random order."""
        return 100 * self.relevant


def summarise(scores: Sequence[Scores | Retrieved], clips: Clips) -> tuple[dict[str, float], dict[str, list[float]]]:
    """All metrics, and 95 % intervals of those that are shares of clips, keyed `<name>.<metric>`.

    Of clips with several labels only mean average precision means something.

    Args:
        scores: of all classifiers.
        clips: the test clips they are about.
    """
    values: dict[str, float] = {}
    spans: dict[str, list[float]] = {}
    for modality in dict.fromkeys(one.modality for one in scores):
        of_modality = [one for one in scores if one.modality == modality]
        right = {f"{one.name}.{k}": v for one in of_modality for k, v in one.right(clips.labels).items()}
        values |= {key: 100 * flags.mean() for key, flags in right.items()}
        if right:
            spread = intervals(np.stack(list(right.values()), axis=1), clips.items_of(modality))
            spans |= dict(zip(right, spread.round(DECIMALS).tolist(), strict=True))
    values |= {f"{one.name}.{k}": v for one in scores for k, v in one.overall(clips.labels).items()}
    order = [f"{one.name}." for one in scores]
    keys = [key for name in order for key in values if key.startswith(name)]
    return {key: round(float(values[key]), DECIMALS) for key in keys}, {key: spans[key] for key in keys if key in spans}


def chance(scores: Sequence[Scores | Retrieved], clips: Clips) -> dict[str, float]:
    """Per classifier, what guessing scores in the metric that the table shows, on these very clips."""
    return {one.name: round(one.chance(clips.labels), DECIMALS) for one in scores}


def per_class(scores: Sequence[Scores | Retrieved], clips: Clips) -> dict[str, dict[str, float]]:
    """Per classifier and label the percentage of its test clips that were recognised; of several labels average precision."""
    labels, index = np.unique(clips.labels, return_inverse=True)
    found = {}
    for one in scores:
        if not isinstance(one, Scores):
            continue
        if one.joined or several(clips.labels):
            values, true = one.rankings(clips.labels)
            names, rates = classes_of(clips.labels), average_precision_score(true, values, average=None)
        else:
            names, rates = labels, np.bincount(index, one.predicted == clips.labels) / np.bincount(index)
        found[one.name] = {str(n): round(100 * float(rate), DECIMALS) for n, rate in zip(names, rates, strict=True)}
    return found


def confusion(scores: Sequence[Scores | Retrieved], clips: Clips) -> pd.DataFrame:
    """Which label was taken for which, how often: method, label, predicted, clips; without pairs that never came.

    Empty where clips have several labels.
    """
    parts = [pd.DataFrame(columns=["method", "label", "predicted", "clips"])]
    for one in scores:
        if isinstance(one, Scores) and not one.joined and not several(clips.labels):
            pairs = pd.DataFrame({"label": clips.labels, "predicted": one.predicted})
            parts.append(pairs.value_counts(sort=False).rename("clips").reset_index().assign(method=one.name))
    return pd.concat(parts)


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
    hit: np.ndarray = (np.asarray(classes)[best] == np.asarray(labels)[:, None]).any(axis=1)
    return hit


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
    weights = _resamples(items, seed, RESAMPLES)
    totals = weights.sum(axis=1)
    kept = totals > 0  # with very few crossed items a resample can hold no clip at all
    rates = 100 * (weights[kept] @ correct.astype(np.float32)) / totals[kept, None]
    return _bounds(rates, level)


def ranking_intervals(
    scores: Sequence[Scores | Retrieved], clips: Clips
) -> tuple[dict[str, list[float]], dict[str, dict[str, list[float]]]]:
    """Bootstrap intervals of mean average precision (`<name>.map`) and of each class; none of clips with one label.

    Items are resampled as in `intervals`; a resample without a clip of a class says nothing about the class. A clip that
    is drawn twice stands before itself in a ranking, which flatters: the spread of the resamples is put around the value.
    """
    means: dict[str, list[float]] = {}
    classes: dict[str, dict[str, list[float]]] = {}
    for one in scores:
        if isinstance(one, Scores) and (one.joined or several(clips.labels)):
            weights = np.ascontiguousarray(_resamples(clips.items_of(one.modality), 0, RANKED_RESAMPLES).T)
            values = 100 * average_precisions(*one.rankings(clips.labels), np.ones((len(clips.ids), 1), np.float32))
            rates = 100 * average_precisions(*one.rankings(clips.labels), weights)
            rates = rates[~np.isnan(rates).all(axis=1)]
            names, bounds = classes_of(clips.labels).tolist(), _around(values, rates).tolist()
            classes[one.name] = dict(zip(names, bounds, strict=True))
            of_all = (np.nanmean(part, axis=1, keepdims=True) for part in (values, rates))
            means[f"{one.name}.map"] = _around(*of_all)[0].tolist()
    return means, classes


def average_precisions(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision of each class's ranking of weighted clips.

    Args:
        scores, targets: (clips, classes) as for `mean_average_precision`.
        weights: (clips, resamples), how often each clip counts.

    Returns:
        (resamples, classes) in 0..1; NaN where no clip of the class counts.
    """
    found = np.full((weights.shape[1], targets.shape[1]), np.nan)
    for column in np.flatnonzero(targets.any(axis=0)):
        order = np.argsort(-scores[:, column], kind="stable")
        true, sorted_scores = targets[order, column], scores[order, column]
        # Clips of equal scores come together: precision is that at the end of such a group.
        group = np.concatenate([[0], np.cumsum(np.diff(sorted_scores) != 0)])
        with_true, firsts = np.unique(group[true], return_index=True)
        ends = np.searchsorted(group, with_true, side="right")
        hits = np.add.reduceat(weights[order[true]], firsts, axis=0)
        seen = np.add.reduceat(weights[order[: ends[-1]]], [0, *ends[:-1]], axis=0).cumsum(axis=0)
        right = hits.cumsum(axis=0)
        with np.errstate(invalid="ignore"):  # 0 of 0 clips: NaN, of which nothing counts
            found[:, column] = np.nansum(hits * right / seen, axis=0) / right[-1]
    return found


def _resamples(items: Sequence[np.ndarray], seed: int, count: int) -> np.ndarray:
    """How often each clip counts (count, clips), float32."""
    generator = np.random.default_rng(seed)
    weights = np.ones((count, len(items[0])), dtype=np.float32)
    for names in items:
        unique, index = np.unique(names, return_inverse=True)
        draws = generator.multinomial(len(unique), np.full(len(unique), 1 / len(unique)), size=count)
        weights *= draws.astype(np.float32)[:, index]
    return weights


def _around(values: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """(metrics, 2): bounds of resamples (resamples, metrics), moved so that their mean is the value (1, metrics)."""
    moved = rates - np.nanmean(rates, axis=0) + values
    bounds: np.ndarray = _bounds(moved).clip(0, 100).round(DECIMALS)
    return bounds


def _bounds(rates: np.ndarray, level: float = 0.95) -> np.ndarray:
    """(metrics, 2): what `level` of the resamples (resamples, metrics) lie between; NaN is no resample."""
    bounds: np.ndarray = np.nanquantile(rates.astype(float), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return bounds.T
