"""Draws numbers that are the same on every machine.

Uniform numbers come from bits by exact arithmetic. A generator's normal numbers do not: they use the logarithm of the
machine's library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Draws a number from `low` to `high`, uniformly."""
    return low + (high - low) * rng.random()


def arrays_between(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
    """Draws an array of numbers from `low` to `high`, uniformly."""
    drawn: np.ndarray = low + (high - low) * rng.random(shape)
    return drawn


def choose(rng: np.random.Generator, items: Sequence[Choice]) -> Choice:
    """Draws one of the items."""
    return items[int(rng.integers(len(items)))]


def shuffled(rng: np.random.Generator, items: Sequence[Choice]) -> list[Choice]:
    """Returns the items in a drawn order."""
    return [items[i] for i in rng.permutation(len(items))]
