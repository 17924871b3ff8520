"""Linear probe: multinomial logistic regression on frozen features (paper section 4, tables 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler, normalize

from xkd.downstream.labels import classes_of, several, targets
from xkd.downstream.metrics import mean_average_precision
from xkd.errors import UserError
from xkd.settings import Linear


def concatenate(video: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """Features of both modalities side by side, each L2-normalised: (clips, D_v + D_a)."""
    return np.concatenate([normalize(video), normalize(audio)], axis=1)


def hold_out(labels: np.ndarray, items: Sequence[np.ndarray], share: float) -> tuple[np.ndarray, np.ndarray]:
    """Splits training clips into those that fit the candidates for C and those that choose among them.

    The test clips show scans and recordings that training has never shown. C must be chosen under the
    same condition: if clips of one scan stood on both sides, the least regularised probe, which
    knows the scans by heart, would win. So whole items are held out, evenly over the labels; a clip made
    of two items is held out when both are, and fits when neither is.

    Args:
        labels: (clips,).
        items: one (clips,) array of item names per modality that the probe sees.
        share: part of the clips to hold out.

    Returns:
        Two boolean arrays (clips,): fit, held out. With two factors some clips are in neither.

    Raises:
        UserError: there are too few items to hold any out.
    """
    generator = np.random.default_rng(0)
    inside = [_chosen_items(labels, names, share ** (1 / len(items)), generator) for names in items]
    held, fit = np.all(inside, axis=0), ~np.any(inside, axis=0)
    if not held.any() or len(np.unique(labels[fit])) < 2:
        raise UserError(
            f"evaluate.linear.C: {len(labels)} training clips are too few to choose C on a held-out part; "
            "use more clips or give a single C"
        )
    return fit, held


def choose_c(features: np.ndarray, labels: np.ndarray, items: Sequence[np.ndarray], settings: Linear) -> float:
    """The C with the best held-out top-1 (mAP if clips have several labels); of equals the most regularised.

    Args:
        features: (clips, D) of training clips only.
        labels: (clips,).
        items: as for `hold_out`.
        settings: candidates and the part to hold out.
    """
    candidates = sorted(settings.C)
    if len(candidates) == 1:
        return candidates[0]
    fit, held = hold_out(labels, items, settings.holdout)
    scaler = StandardScaler().fit(features[fit])
    x, x_held = scaler.transform(features[fit]), scaler.transform(features[held])
    if several(labels):
        known = classes_of(labels[fit])
        fitted = (_one_per_class(c).fit(x, targets(labels[fit], known)) for c in candidates)
        accuracy = [mean_average_precision(m.predict_proba(x_held), targets(labels[held], known)) for m in fitted]
        return candidates[int(np.argmax(accuracy))]
    # From strong to weak regularisation each solution is a good start for the next.
    model = _regression(warm_start=True)
    accuracy = [model.set_params(C=c).fit(x, labels[fit]).score(x_held, labels[held]) for c in candidates]
    return candidates[int(np.argmax(accuracy))]


def probe(
    train: np.ndarray, labels: np.ndarray, items: Sequence[np.ndarray], test: np.ndarray, settings: Linear
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fits on the training clips, with C chosen among them, and scores the test clips.

    One multinomial regression, or one regression per class where clips have several labels.

    Args:
        train: (clips, D) features.
        labels: (clips,) training labels; those of the test clips are not asked for.
        items: as for `hold_out`.
        test: (test clips, D) features.
        settings: candidates for C and the part to hold out.

    Returns:
        Class probabilities (test clips, classes), class names (classes,), the chosen C.

    Raises:
        UserError: fewer than two classes, or too few clips to choose C.
    """
    if len(np.unique(labels)) < 2:
        raise UserError(
            "a linear probe needs training clips of two labels or more; see the column label of the manifest"
        )
    train, test = train.astype(np.float64), test.astype(np.float64)
    c = choose_c(train, labels, items, settings)
    scaler = StandardScaler().fit(train)
    if several(labels):
        classes = classes_of(labels)
        model = _one_per_class(c).fit(scaler.transform(train), targets(labels, classes))
        return model.predict_proba(scaler.transform(test)), classes, c
    model = _regression(C=c).fit(scaler.transform(train), labels)
    return model.predict_proba(scaler.transform(test)), model.classes_, c


def _regression(**options) -> LogisticRegression:
    return LogisticRegression(solver="lbfgs", max_iter=1000, **options)


def _one_per_class(c: float) -> OneVsRestClassifier:
    return OneVsRestClassifier(_regression(C=c))


def _chosen_items(labels: np.ndarray, names: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Marks the clips of `share` of the items: every n-th of a list sorted by label, so all labels are met."""
    unique, first, index = np.unique(names, return_index=True, return_inverse=True)
    shuffled = generator.permutation(len(unique))
    by_label = shuffled[np.argsort(labels[first][shuffled], kind="stable")]
    count = min(max(round(share * len(unique)), 1), len(unique) - 1)
    positions = np.arange(count) + generator.random()
    chosen = np.zeros(len(unique), dtype=bool)
    chosen[by_label[(positions * len(unique) / max(count, 1)).astype(int)]] = True
    return chosen[index]
