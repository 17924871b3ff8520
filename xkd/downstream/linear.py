"""Linear probes of frozen features: logistic regression, and the SVM of the paper (section 4, tables 3 and 4)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.svm import LinearSVC

from xkd.downstream.labels import classes_of, several, targets
from xkd.downstream.metrics import mean_average_precision
from xkd.errors import UserError
from xkd.settings import Linear, Svm

Model: TypeAlias = LogisticRegression | LinearSVC | OneVsRestClassifier
Labelled = tuple[np.ndarray, np.ndarray]  # features (clips, D) and labels (clips,)


def concatenate(video: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """Features of both modalities side by side, each L2-normalised: (clips, D_v + D_a)."""
    return np.concatenate([normalize(video), normalize(audio)], axis=1)


def hold_out(
    labels: np.ndarray, items: Sequence[np.ndarray], share: float, key: str = "evaluate.linear.C"
) -> tuple[np.ndarray, np.ndarray]:
    """Splits training clips into those that fit the candidates for C and those that choose among them.

    The test clips show scans and recordings that training has never shown. C must be chosen under the
    same condition: if clips of one scan stood on both sides, the least regularised probe, which
    knows the scans by heart, would win. So whole items are held out, evenly over the labels; a clip made
    of two items is held out when both are, and fits when neither is.

    Args:
        labels: (clips,).
        items: one (clips,) array of item names per modality that the probe sees.
        share: part of the clips to hold out.
        key: the setting that asks for it.

    Returns:
        Two boolean arrays (clips,): fit, held out. With two factors some clips are in neither.

    Raises:
        UserError: there are too few items to hold any out.
    """
    generator = np.random.default_rng(0)
    inside = [_chosen_items(labels, names, share ** (1 / len(items)), generator) for names in items]
    held, fit = np.all(inside, axis=0), ~np.any(inside, axis=0)
    if not held.any() or len(np.unique(labels[fit])) < 2:
        sources = min(len(np.unique(names)) for names in items)
        raise UserError(
            f"{key}: {len(labels)} training clips of {sources} sources are too few to choose C on a held-out part; "
            "use more clips or give a single C"
        )
    return fit, held


def choose_c(features: np.ndarray, labels: np.ndarray, items: Sequence[np.ndarray], settings: Linear | Svm) -> float:
    """The C with the best held-out top-1 (mAP if clips have several labels); of equals the most regularised.

    Args:
        features: (clips, D) of training clips only.
        labels: (clips,).
        items: as for `hold_out`.
        settings: candidates and the part to hold out.
    """
    if len(settings.C) == 1:
        return settings.C[0]
    fit, held = hold_out(labels, items, settings.holdout, f"evaluate.{type(settings).__name__.lower()}.C")
    return _best_c(settings, (features[fit], labels[fit]), (features[held], labels[held]))


def probe(
    train: np.ndarray,
    labels: np.ndarray,
    items: Sequence[np.ndarray],
    test: np.ndarray,
    settings: Linear | Svm,
    test_labels: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Fits on the training clips, with C chosen among them, and scores the test clips.

    One classifier over all classes, or one per class where clips have several labels.

    Args:
        train: (clips, D) features.
        labels: (clips,) training labels.
        items: as for `hold_out`.
        test: (test clips, D) features.
        settings: which classifier, candidates for C and the part to hold out.
        test_labels: looked at only to choose C with `select_on: test`.

    Returns:
        Scores (test clips, classes), class names (classes,), the chosen C.

    Raises:
        UserError: fewer than two classes, or too few clips to choose C.
        ValueError: `select_on: test` without test_labels.
    """
    if len(np.unique(labels)) < 2:
        raise UserError(
            "a linear probe needs training clips of two labels or more; see the column label of the manifest"
        )
    train, test = train.astype(np.float64), test.astype(np.float64)
    if isinstance(settings, Svm) and settings.select_on == "test":
        if test_labels is None:
            raise ValueError("select_on: test needs the labels of the test clips")
        c = _best_c(settings, (train, labels), (test, test_labels))
    else:
        c = choose_c(train, labels, items, settings)
    scaler = StandardScaler().fit(train)
    model, classes = _fitted(settings, scaler.transform(train), labels, c)
    return _scores(model, scaler.transform(test)), classes, c


def _best_c(settings: Linear | Svm, fit: Labelled, held: Labelled) -> float:
    """Of features and labels to fit and to choose on."""
    scaler = StandardScaler().fit(fit[0])
    x, x_held = scaler.transform(fit[0]), scaler.transform(held[0])
    candidates = sorted(settings.C)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough to choose by
        quality = _quality(settings, candidates, (x, fit[1]), (x_held, held[1]))
    return candidates[int(np.argmax(quality))]


def _quality(settings: Linear | Svm, candidates: Sequence[float], fit: Labelled, held: Labelled) -> list[float]:
    """Top-1 (mAP if clips have several labels) of each candidate."""
    (x, labels), (x_held, held_labels) = fit, held
    if several(labels):
        fitted = (_fitted(settings, x, labels, c) for c in candidates)
        return [mean_average_precision(_scores(m, x_held), targets(held_labels, names)) for m, names in fitted]
    if isinstance(settings, Linear):
        # From strong to weak regularisation each solution is a good start for the next.
        model = _classifier(settings, candidates[0]).set_params(warm_start=True)
        return [model.set_params(C=c).fit(x, labels).score(x_held, held_labels) for c in candidates]
    return [_classifier(settings, c).fit(x, labels).score(x_held, held_labels) for c in candidates]


def _classifier(settings: Linear | Svm, c: float) -> LogisticRegression | LinearSVC:
    if isinstance(settings, Linear):
        return LogisticRegression(C=c, solver="lbfgs", max_iter=1000)
    return LinearSVC(C=c, max_iter=settings.max_iter, random_state=0)


def _fitted(settings: Linear | Svm, x: np.ndarray, labels: np.ndarray, c: float) -> tuple[Model, np.ndarray]:
    """A classifier and the names of its classes."""
    if several(labels):
        classes = classes_of(labels)
        return OneVsRestClassifier(_classifier(settings, c)).fit(x, targets(labels, classes)), classes
    model = _classifier(settings, c).fit(x, labels)
    return model, model.classes_


def _scores(model: Model, x: np.ndarray) -> np.ndarray:
    """(clips, classes): probabilities where the model has them, else signed distances."""
    if hasattr(model, "predict_proba"):
        probabilities: np.ndarray = model.predict_proba(x)
        return probabilities
    distances: np.ndarray = model.decision_function(x)
    return distances if distances.ndim == 2 else np.stack([-distances, distances], axis=1)


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
