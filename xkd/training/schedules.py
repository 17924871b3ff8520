"""Schedules, each as one array over steps that is computed before training starts (method: "Schedule")."""

from __future__ import annotations

import numpy as np

from xkd.settings import MODALITY_NAMES, ObjectiveSettings, Training

SCHEDULED = ("learning_rate", "ema_momentum", *(f"teacher_temperature_{modality}" for modality in MODALITY_NAMES))


def cosine(first: float, last: float, steps: int, warmup: int = 0) -> np.ndarray:
    """Returns `steps` values: a linear rise from 0 over `warmup` steps, then a cosine from `first` to `last`."""
    rise = np.linspace(0, first, warmup, endpoint=False)
    progress = np.arange(steps - warmup) / max(1, steps - warmup)
    fall = last + 0.5 * (first - last) * (1 + np.cos(np.pi * progress))
    return np.concatenate([rise, fall])[:steps]


def linear_then_constant(first: float, last: float, steps: int, warmup: int) -> np.ndarray:
    """Returns `steps` values: linear from `first` to `last` over `warmup` steps, `last` afterwards."""
    rise = np.linspace(first, last, warmup, endpoint=False)
    return np.concatenate([rise, np.full(max(0, steps - warmup), last)])[:steps]


def schedules(training: Training, objective: ObjectiveSettings, steps_per_epoch: int) -> dict[str, np.ndarray]:
    """Returns one array per scheduled quantity, indexed by step.

    Args:
        training, objective: groups of that name in `xkd.settings`.
        steps_per_epoch: optimiser steps in an epoch.
    """
    steps = training.epochs * steps_per_epoch
    warmup = min(steps, round(training.warmup_epochs * steps_per_epoch))
    temperature_warmup = min(steps, round(objective.temperature_warmup_epochs * steps_per_epoch))
    rate, momentum = cosine(training.peak_learning_rate, 0.0, steps, warmup), cosine(*training.ema, steps)
    ranges: list[tuple[float, float]] = [getattr(objective, name) for name in SCHEDULED[2:]]
    temperatures = [linear_then_constant(*ends, steps, temperature_warmup) for ends in ranges]
    return dict(zip(SCHEDULED, (rate, momentum, *temperatures), strict=True))
