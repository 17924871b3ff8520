"""The global generators of a process, in types that `torch.load(..., weights_only=True)` reads.

Order, views and masks do not depend on them: those are drawn from (seed, epoch, clip) and (seed, step).
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """States of Python's, numpy's and torch's generators, and of the GPU's."""
    numpy = np.random.get_state(legacy=False)
    keys, place = numpy["state"]["key"].tolist(), numpy["state"]["pos"]
    return {
        "python": random.getstate(),
        "numpy": (numpy["bit_generator"], keys, place, numpy["has_gauss"], numpy["gauss"]),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Takes up what `random_state` gave."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
