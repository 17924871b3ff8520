"""Padding of views where a clip is shorter than they are."""

from __future__ import annotations

import numpy as np


def padded(values: np.ndarray, length: int, modality: str, pad: str = "hold") -> np.ndarray:
    """Frames (T, ...) or samples (S,), filled up to `length` where there are fewer.

    Args:
        pad: "hold": the last frame stays, sound goes silent; "loop": both start again from the beginning (clips.pad).
    """
    missing = length - len(values)
    if missing <= 0:
        return values
    if pad == "loop" and len(values):
        return values[np.arange(length) % len(values)]
    if modality == "video":
        return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
    return np.pad(values, (0, missing))
