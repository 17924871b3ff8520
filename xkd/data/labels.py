"""Labels as text: one per clip, or several joined by ";" (FSD50K, AudioSet)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from xkd.data.listing import LABEL_SEPARATOR


def several(labels: Iterable[str]) -> bool:
    """Returns whether any clip has more than one label."""
    return any(LABEL_SEPARATOR in label for label in labels)


def classes_of(labels: Iterable[str]) -> np.ndarray:
    """Returns every label once, sorted."""
    return np.array(sorted({one for label in labels for one in label.split(LABEL_SEPARATOR)}))


def numbers_of(label: str, numbers: dict[str, int]) -> list[int]:
    """Returns the class numbers of a clip's label, or of each of those that it joins."""
    return [numbers[one] for one in label.split(LABEL_SEPARATOR)]
