"""Linear classifiers of many examples: Newton's method with conjugate gradients, for all classes at once.

Minimises, over weights W and intercepts b,

    1/2 |W|^2 (+ 1/2 |b|^2 where the loss says so) + C * sum over examples of loss(W'x + b, label)

for the losses of scikit-learn's LogisticRegression and LinearSVC. Examples are visited in blocks. Products of matrices
are float32, on the GPU if there is one; sums over blocks and all that has the size of W are float64.

Shapes: N examples, D features, K classes, P problems: K where classes are fitted one by one, 1 where together. Values
of problems broadcast against (D, K).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 2**24  # scores in memory at once
# Predicted decrease at which a problem is solved, relative to the objective; and relative to C * N, for labels that all
# examples have, whose objective falls to 0 without end.
TOLERANCE, FLOOR = 1e-7, 1e-10
FORCING = 0.1  # relative accuracy of a Newton direction
DIRECTION_STEPS, SHORTEST = 500, 2.0**-10  # conjugate gradients for a direction; the shortest way that is gone along it


class Loss(Protocol):
    """A loss of scores and labels.

    Attributes:
        together: whether the classes of an example share one loss.
        intercept: weight of the intercept's square in the objective, relative to that of the weights.
    """

    together: bool
    intercept: float

    def parts(self, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the losses (N, P), their derivatives by the scores (N, K), and what `product` needs (N, K)."""

    def product(self, state: Tensor, change: Tensor) -> Tensor:
        """Returns the second derivative times a change of the scores (N, K)."""

    def diagonal(self, state: Tensor) -> Tensor:
        """Returns the second derivative by each score (N, K)."""


class Softmax(Loss):
    """Cross-entropy of class numbers (N,): multinomial logistic regression."""

    together, intercept = True, 0.0

    def parts(self, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logs = F.log_softmax(scores, 1)
        chances = logs.exp()
        slope = chances.scatter_add(1, labels[:, None], chances.new_full((len(labels), 1), -1.0))
        return -logs.gather(1, labels[:, None]), slope, chances

    def product(self, state: Tensor, change: Tensor) -> Tensor:
        weighted = state * change
        return weighted.sub_(state * weighted.sum(1, keepdim=True))

    def diagonal(self, state: Tensor) -> Tensor:
        return state * (1 - state)


class _OneByOne(Loss):
    """Base of losses of class memberships (N, K), 1 or -1."""

    together, intercept = False, 0.0

    def product(self, state: Tensor, change: Tensor) -> Tensor:
        return state * change

    def diagonal(self, state: Tensor) -> Tensor:
        return state


class Logistic(_OneByOne):
    """Logistic loss of each class: logistic regression of two classes, or one class against the rest."""

    def parts(self, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        margins = labels * scores
        wrong = torch.sigmoid(-margins)
        return F.softplus(-margins), -labels * wrong, wrong * (1 - wrong)


class SquaredHinge(_OneByOne):
    """Squared hinge loss of each class, with a regularised intercept: LinearSVC."""

    intercept = 1.0

    def parts(self, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        short = (1 - labels * scores).clamp_(min=0)
        return short.square(), -2 * labels * short, 2.0 * (short > 0)


@dataclass(frozen=True)
class Fit:
    """A solution.

    Attributes:
        weights: (D + 1, K) float64, intercepts last.
        objective: (P,) float64.
        converged: whether every problem was solved.
    """

    weights: Tensor
    objective: Tensor
    converged: bool


class Examples:
    """Standardised examples and what does not depend on C.

    Args:
        x: (N, D) float32 features, columns of mean 0.
        labels: (N,) class numbers where the loss takes all classes together, else (N, K) booleans.
        loss: of each example.
    """

    def __init__(self, x: Tensor, labels: Tensor, loss: Loss) -> None:
        self.x, self.labels, self.loss = x, labels, loss
        self.classes = int(labels.max()) + 1 if loss.together else labels.shape[1]
        self.regularised = torch.ones(x.shape[1] + 1, 1, dtype=torch.float64, device=x.device)
        self.regularised[-1] = loss.intercept
        gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
        for rows in self._blocks():
            gram += x[rows].T @ x[rows]
        self.spectrum, self.axes = torch.linalg.eigh(gram / len(x))

    def _blocks(self) -> Iterator[slice]:
        size = max(1, BLOCK // max(self.classes, self.x.shape[1]))
        return (slice(start, start + size) for start in range(0, len(self.x), size))

    def scores(self, weights: Tensor, rows: slice) -> Tensor:
        """Returns the scores (N, K) of some examples, float32."""
        weights = weights.float()
        return torch.addmm(weights[-1], self.x[rows], weights[:-1])

    def dot(self, one: Tensor, other: Tensor) -> Tensor:
        """Returns the inner product (P,) within each problem."""
        each = (one * other).sum(0)
        return each.sum(0, keepdim=True) if self.loss.together else each

    def at(self, weights: Tensor, c: float) -> _Point:
        """Computes objective, gradient and curvature at these weights."""
        gradient, states = self.regularised * weights, []
        value, curvature = self.dot(gradient, weights) / 2, torch.zeros_like(weights[-1])
        for rows in self._blocks():
            labels = self.labels[rows] if self.loss.together else 2.0 * self.labels[rows] - 1
            losses, slope, state = self.loss.parts(self.scores(weights, rows), labels)
            value += c * losses.sum(0, dtype=torch.float64)
            self._add(gradient, rows, c * slope)
            curvature += self.loss.diagonal(state).sum(0, dtype=torch.float64)
            states.append(state)
        return _Point(weights, value, gradient, c * curvature, states)

    def product(self, point: _Point, change: Tensor, c: float) -> Tensor:
        """Returns the Hessian at a point times a change of the weights (D + 1, K)."""
        found = self.regularised * change
        for rows, state in zip(self._blocks(), point.states, strict=True):
            self._add(found, rows, c * self.loss.product(state, self.scores(change, rows)))
        return found

    def precondition(self, point: _Point, residual: Tensor) -> Tensor:
        """Divides by the Hessian that a point would have if all examples of a class had the same curvature."""
        curvature = point.curvature.clamp(min=1e-12)
        found = torch.empty_like(residual)
        found[:-1] = self.axes @ ((self.axes.T @ residual[:-1]) / (1 + self.spectrum.clamp(min=0)[:, None] * curvature))
        found[-1] = residual[-1] / (self.loss.intercept + curvature)
        return found

    def _add(self, total: Tensor, rows: slice, of_scores: Tensor) -> None:
        total[:-1] += self.x[rows].T @ of_scores
        total[-1] += of_scores.sum(0, dtype=torch.float64)


@dataclass(frozen=True)
class _Point:
    """Weights with objective (P,), gradient (D + 1, K), summed curvature (K,), and states of the loss per block."""

    weights: Tensor
    value: Tensor
    gradient: Tensor
    curvature: Tensor
    states: list[Tensor]


def minimise(examples: Examples, c: float, max_iter: int, start: Tensor | None = None) -> Fit:
    """Finds the weights of the smallest objective.

    Args:
        c: weight of the losses.
        max_iter: most Newton steps.
        start: (D + 1, K) weights to start from; zeros by default.
    """
    if start is None:
        start = examples.regularised.new_zeros(len(examples.regularised), examples.classes)
    point, floor = examples.at(start, c), FLOOR * c * len(examples.x)
    for _ in range(max_iter):
        direction = _direction(point, examples, partial(examples.product, point, c=c))
        slope = examples.dot(point.gradient, direction)
        solved = -slope <= TOLERANCE * point.value + floor
        if solved.all():
            return Fit(point.weights, point.value, converged=True)
        moved = _step(point, direction, slope, solved, lambda weights: examples.at(weights, c))
        if moved is None:  # no step lowers the objective any more: rounding decides
            return Fit(
                point.weights, point.value, converged=bool((-slope <= 100 * (TOLERANCE * point.value + floor)).all())
            )
        point = moved
    return Fit(point.weights, point.value, converged=False)


def _direction(point: _Point, examples: Examples, product: Callable[[Tensor], Tensor]) -> Tensor:
    """Solves Hessian * direction = -gradient for each problem, to `FORCING`, by conjugate gradients."""
    found, residual = torch.zeros_like(point.gradient), -point.gradient
    scaled = examples.precondition(point, residual)
    search, size = scaled, examples.dot(residual, scaled)
    enough = FORCING**2 * size
    for _ in range(DIRECTION_STEPS):
        image = product(search)
        length = torch.where(size > enough, size / examples.dot(search, image), 0.0)
        found = found + length * search
        residual = residual - length * image
        scaled = examples.precondition(point, residual)
        earlier, size = size, torch.where(size > enough, examples.dot(residual, scaled), size)
        if not (size > enough).any():
            break
        search = scaled + size / earlier * search
    return found


def _step(
    point: _Point, direction: Tensor, slope: Tensor, solved: Tensor, at: Callable[[Tensor], _Point]
) -> _Point | None:
    """Goes along a direction, in each problem as far as the objective falls; None if it falls in none."""
    length = torch.where(solved, 0.0, 1.0)
    while (length > 0).any():
        moved = at(point.weights + length * direction)
        worse = (length > 0) & (moved.value > point.value + 1e-4 * length * slope)
        if not worse.any():
            return moved
        length = torch.where(worse, length / 2, length)
        length[length < SHORTEST] = 0
    return None
