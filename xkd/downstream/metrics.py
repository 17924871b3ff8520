"""Accuracy, mean average precision, and how far they could move with other test items. All rates are percent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from xkd.data.labels import classes_of, several
from xkd.downstream.features import ClipOutputs
from xkd.downstream.scores import Retrieved, Scores, class_average_precisions

RESAMPLES = 1000
RANKED_RESAMPLES = 200  # of rankings, which are sorted out anew for each class and resample
DECIMALS = 4
WEIGHTS = 2**24  # of resamples in memory at once


def summarise(
    scores: Sequence[Scores | Retrieved], clips: ClipOutputs
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Computes all metrics, and 95 % intervals of those that are shares of clips, keyed `<column>.<metric>`.

    Clips with several labels have mean average precision alone; clips of one item say nothing about another, so that
    their metrics have no interval.

    Args:
        scores: of all classifiers.
        clips: the test clips that they are about.
    """
    values: dict[str, float] = {}
    spans: dict[str, list[float]] = {}
    for modality in dict.fromkeys(one.modality for one in scores):
        of_modality = [one for one in scores if one.modality == modality]
        right = {f"{one.column}.{k}": v for one in of_modality for k, v in one.right(clips.labels).items()}
        values |= {key: 100 * flags.mean() for key, flags in right.items()}
        items = clips.items_of(modality)
        if right and not _of_one_item(items):
            spread = intervals(np.stack(list(right.values()), axis=1), items)
            spans |= dict(zip(right, spread.round(DECIMALS).tolist(), strict=True))
    values |= {f"{one.column}.{k}": v for one in scores for k, v in one.overall(clips.labels).items()}
    order = [f"{one.column}." for one in scores]
    keys = [key for name in order for key in values if key.startswith(name)]
    return {key: round(float(values[key]), DECIMALS) for key in keys}, {key: spans[key] for key in keys if key in spans}


def chance_rates(scores: Sequence[Scores | Retrieved], clips: ClipOutputs) -> dict[str, float]:
    """Computes what guessing scores on these clips, in the metric that the table shows, per classifier."""
    return {str(one.column): round(one.chance(clips.labels), DECIMALS) for one in scores}


def per_class(scores: Sequence[Scores | Retrieved], clips: ClipOutputs) -> dict[str, dict[str, float]]:
    """Computes per classifier and label the percentage of its test clips that were recognised.

    For clips with several labels it is the label's average precision.
    """
    labels, index = np.unique(clips.labels, return_inverse=True)
    found = {}
    for one in scores:
        if not isinstance(one, Scores):
            continue
        if one.joined or several(clips.labels):
            values, true = one.rankings(clips.labels)
            names, rates = classes_of(clips.labels), class_average_precisions(values, true)
        else:
            names, rates = labels, np.bincount(index, one.recognised(clips.labels)) / np.bincount(index)
        found[str(one.column)] = {
            str(n): round(100 * float(rate), DECIMALS) for n, rate in zip(names, rates, strict=True)
        }
    return found


def confusion(scores: Sequence[Scores | Retrieved], clips: ClipOutputs) -> pd.DataFrame:
    """Counts which label was taken for which: columns method, label, predicted, clips; pairs that occurred alone.

    Empty where clips have several labels.
    """
    parts = [pd.DataFrame(columns=["method", "label", "predicted", "clips"])]
    for one in scores:
        if isinstance(one, Scores) and not one.joined and not several(clips.labels):
            pairs = pd.DataFrame({"label": clips.labels, "predicted": one.predicted})
            parts.append(pairs.value_counts(sort=False).rename("clips").reset_index().assign(method=str(one.column)))
    return pd.concat(parts)


def intervals(correct: np.ndarray, items: Sequence[np.ndarray], seed: int = 0, level: float = 0.95) -> np.ndarray:
    """Computes bootstrap intervals of accuracies, resampling the items that clips are made of.

    Clips of one scan or one recording are right or wrong together: a thousand clips of ten scans say
    little about an eleventh. Items are therefore drawn with replacement, and a clip counts as often
    as its item. A clip made of two items (an image and a recording) counts as the product of both
    draws, which is the bootstrap of crossed factors.

    Args:
        correct: (clips, metrics) of 0 and 1.
        items: one (clips,) array of item names per factor.
        seed: of the draws.
        level: share of resamples inside the interval.

    Returns:
        (metrics, 2): low and high, percent.
    """
    index, factors = _combinations(items)
    size = len(factors[0])
    counts = np.stack([np.bincount(index, column, size) for column in [*correct.T, None]], axis=1).astype(np.float32)
    sums = np.concatenate([weights @ counts for weights in _resamples(factors, seed, RESAMPLES)])
    kept = sums[:, -1] > 0  # with very few crossed items a resample can hold no clip at all
    rates = 100 * sums[kept, :-1] / sums[kept, -1:]
    return _bounds(rates, level)


def ranking_intervals(
    scores: Sequence[Scores | Retrieved], clips: ClipOutputs
) -> tuple[dict[str, list[float]], dict[str, dict[str, list[float]]]]:
    """Computes bootstrap intervals of mean average precision (`<column>.map`) and of each class's, for several labels.

    Items are resampled as in `intervals`; a resample without a clip of a class says nothing about the class. A clip
    that is drawn twice precedes itself in a ranking, which raises precision: the spread is put around the value.
    """
    means: dict[str, list[float]] = {}
    classes: dict[str, dict[str, list[float]]] = {}
    for one in scores:
        if isinstance(one, Scores) and (one.joined or several(clips.labels)):
            if _of_one_item(items := clips.items_of(one.modality)):
                continue
            index, factors = _combinations(items)
            weights = np.concatenate(list(_resamples(factors, 0, RANKED_RESAMPLES))).T[index]
            values = 100 * average_precisions(*one.rankings(clips.labels), np.ones((len(clips.ids), 1), np.float32))
            rates = 100 * average_precisions(*one.rankings(clips.labels), weights)
            rates = rates[~np.isnan(rates).all(axis=1)]
            names, bounds = classes_of(clips.labels).tolist(), _around(values, rates).tolist()
            classes[str(one.column)] = dict(zip(names, bounds, strict=True))
            of_all = (np.nanmean(part, axis=1, keepdims=True) for part in (values, rates))
            means[f"{one.column}.map"] = _around(*of_all)[0].tolist()
    return means, classes


def draw_intervals(drawn: Sequence[Scores]) -> dict[str, list[float]]:
    """Computes 95 % intervals of mean top1 over draws of training clips (`<column>.top1`), by Student's t."""
    found = {}
    for one in drawn:
        mean, count = np.mean(one.draws), len(one.draws)
        reach = stdtrit(count - 1, 0.975) * np.std(one.draws, ddof=1) / np.sqrt(count)
        found[f"{one.column}.top1"] = np.round([mean - reach, mean + reach], DECIMALS).tolist()
    return found


def average_precisions(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Computes the average precision of each class's ranking of weighted clips.

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


def _of_one_item(items: Sequence[np.ndarray]) -> bool:
    return all((names == names[0]).all() for names in items)


def _combinations(items: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the combinations of items: that of each clip (clips,), and the items of each (factors, combinations)."""
    codes = np.stack([np.unique(names, return_inverse=True)[1] for names in items])
    if len(codes) == 1:
        return codes[0], np.arange(codes.max() + 1)[None]
    sizes = codes.max(axis=1) + 1
    numbers, index = np.unique(np.ravel_multi_index(tuple(codes), tuple(sizes)), return_inverse=True)
    return index, np.stack(np.unravel_index(numbers, tuple(sizes)))


def _resamples(factors: np.ndarray, seed: int, count: int) -> Iterator[np.ndarray]:
    """Yields, for some of `count` resamples at a time, how often each combination counts (resamples, combinations)."""
    draws = _draws(tuple(int(codes.max()) + 1 for codes in factors), seed, count)
    size = max(1, WEIGHTS // factors.shape[1])
    for start in range(0, count, size):
        parts = [of[start : start + size, codes] for of, codes in zip(draws, factors, strict=True)]
        yield np.prod(parts, axis=0, dtype=np.float32)


@lru_cache(maxsize=2)
def _draws(sizes: tuple[int, ...], seed: int, count: int) -> list[np.ndarray]:
    """Draws how often each of `sizes` items of a factor comes: (count, items) per factor."""
    generator, found = np.random.default_rng(seed), []
    for items in sizes:
        shares = np.full(items, 1 / items)
        found.append(np.stack([generator.multinomial(items, shares).astype(np.uint16) for _ in range(count)]))
    return found


def _around(values: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Returns bounds (metrics, 2) of resamples (resamples, metrics), moved to have the value (1, metrics) as mean."""
    moved = rates - np.nanmean(rates, axis=0) + values
    bounds: np.ndarray = _bounds(moved).clip(0, 100).round(DECIMALS)
    return bounds


def _bounds(rates: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Returns the bounds (metrics, 2) that hold `level` of the resamples (resamples, metrics); NaN is no resample."""
    bounds: np.ndarray = np.nanquantile(rates.astype(float), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return bounds.T
