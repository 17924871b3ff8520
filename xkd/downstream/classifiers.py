"""Linear classifiers of the probes: scikit-learn's for few examples, Newton's method on the device for many."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor

from xkd.data.labels import classes_of, several
from xkd.device import device
from xkd.downstream.labels import targets
from xkd.downstream.newton import Examples, Logistic, Loss, Softmax, SquaredHinge, minimise
from xkd.settings import Linear, Svm

LARGE = 10**8  # examples * features * classes, from which on scikit-learn takes more than some ten seconds for a fit
ROWS = 2**13  # examples that are standardised at once
PATIENCE = 1000  # most iterations of logistic regression
LinearClassifier: TypeAlias = LogisticRegression | LinearSVC | OneVsRestClassifier


class Part(NamedTuple):
    """Some of the examples.

    Attributes:
        features: (N, D) of all examples.
        labels: (N,) of all examples.
        rows: (n,) numbers of those meant.
    """

    features: np.ndarray
    labels: np.ndarray
    rows: np.ndarray

    @classmethod
    def whole(cls, features: np.ndarray, labels: np.ndarray) -> Part:
        """Returns all examples."""
        return cls(features, labels, np.arange(len(labels)))

    @property
    def names(self) -> np.ndarray:
        """The labels of the examples meant (n,)."""
        names: np.ndarray = self.labels[self.rows]
        return names

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields their features (at most ROWS, D), float64."""
        for start in range(0, len(self.rows), ROWS):
            yield self.features[self.rows[start : start + ROWS]].astype(np.float64)


def scored(
    settings: Linear | Svm, candidates: Sequence[float], train: Part, test: Part
) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Fits a classifier for each candidate for C, and scores other examples.

    One classifier over all classes, or one per class where clips have several labels. Features are scaled to unit
    variance on the training examples.

    Returns:
        Class names (classes,), and for each candidate in turn the scores (test examples, classes), float64:
        probabilities of logistic regression, signed distances of the SVM.
    """
    joined = several(train.names)
    classes = classes_of(train.names) if joined else np.unique(train.names)
    solver = settings.solver
    if solver == "auto":
        solver = "torch" if len(train.rows) * train.features.shape[1] * len(classes) > LARGE else "sklearn"
    fit = _by_newton if solver == "torch" else _by_scikit_learn
    return classes, fit(settings, candidates, train, test, classes, joined)


def _by_scikit_learn(
    settings: Linear | Svm, candidates: Sequence[float], train: Part, test: Part, classes: np.ndarray, joined: bool
) -> Iterator[np.ndarray]:
    x = np.concatenate(list(train.blocks()))
    scaler = StandardScaler().fit(x)
    x, x_test = scaler.transform(x), scaler.transform(np.concatenate(list(test.blocks())))
    labels = targets(train.names, classes) if joined else train.names
    if isinstance(settings, Linear) and not joined:
        # From strong to weak regularisation each solution is a good start for the next.
        model = _model(settings, candidates[0]).set_params(warm_start=len(candidates) > 1)
        for c in candidates:
            yield _scores(model.set_params(C=c).fit(x, labels), x_test)
        return
    for c in candidates:
        fitted = OneVsRestClassifier(_model(settings, c)) if joined else _model(settings, c)
        yield _scores(fitted.fit(x, labels), x_test)


def _model(settings: Linear | Svm, c: float) -> LogisticRegression | LinearSVC:
    if isinstance(settings, Linear):
        return LogisticRegression(C=c, solver="lbfgs", max_iter=PATIENCE)
    return LinearSVC(C=c, max_iter=settings.max_iter, random_state=0)


def _scores(model: LinearClassifier, x: np.ndarray) -> np.ndarray:
    """Returns scores (examples, classes): probabilities where the model has them, else signed distances."""
    if hasattr(model, "predict_proba"):
        probabilities: np.ndarray = model.predict_proba(x)
        return probabilities
    distances: np.ndarray = model.decision_function(x)
    return distances if distances.ndim == 2 else np.stack([-distances, distances], axis=1)


def _by_newton(
    settings: Linear | Svm, candidates: Sequence[float], train: Part, test: Part, classes: np.ndarray, joined: bool
) -> Iterator[np.ndarray]:
    loss, labels = _problem(settings, train.names, classes, joined)
    scaler = StandardScaler()
    for block in train.blocks():
        scaler.partial_fit(block)
    x = torch.empty(len(train.rows), train.features.shape[1], device=device())
    for start, block in zip(range(0, len(x), ROWS), train.blocks(), strict=True):
        x[start : start + ROWS] = torch.from_numpy(scaler.transform(block))
    examples = Examples(x, labels.to(device()), loss)
    patience, weights = PATIENCE if isinstance(settings, Linear) else settings.max_iter, None
    for c in candidates:
        fit = minimise(examples, c, patience, weights)
        if not fit.converged:
            warnings.warn(f"C = {c}: Newton's method did not converge", ConvergenceWarning, stacklevel=2)
        weights = fit.weights
        scores = [_linear(scaler.transform(block), weights) for block in test.blocks()]
        yield _finished(loss, torch.cat(scores), joined)


def _linear(x: np.ndarray, weights: Tensor) -> Tensor:
    """Returns the scores (n, K), float64, of standardised features (n, D)."""
    return (torch.from_numpy(x).to(weights) @ weights[:-1] + weights[-1]).cpu()


def _finished(loss: Loss, scores: Tensor, joined: bool) -> np.ndarray:
    """Returns what `_scores` returns for a model of scikit-learn."""
    if isinstance(loss, SquaredHinge):
        both = scores if joined or scores.shape[1] > 1 else torch.cat([-scores, scores], 1)
    elif isinstance(loss, Softmax):
        both = scores.softmax(1)
    else:
        both = scores.sigmoid() if joined else torch.cat([(-scores).sigmoid(), scores.sigmoid()], 1)
    found: np.ndarray = both.numpy()
    return found


def _problem(settings: Linear | Svm, names: np.ndarray, classes: np.ndarray, joined: bool) -> tuple[Loss, Tensor]:
    """Returns the loss, and the labels as it wants them; of two classes, the second alone is fitted."""
    one_by_one: Loss = Logistic() if isinstance(settings, Linear) else SquaredHinge()
    if joined:
        return one_by_one, torch.from_numpy(targets(names, classes))
    numbers = np.searchsorted(classes, names)
    if isinstance(settings, Linear) and len(classes) > 2:
        return Softmax(), torch.from_numpy(numbers)
    wanted = np.arange(len(classes)) if len(classes) > 2 else np.ones(1, dtype=int)
    return one_by_one, torch.from_numpy(numbers[:, None] == wanted)
