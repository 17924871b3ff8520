"""Stage `evaluate`: what the encoders of one run are worth on held-out clips, by one protocol."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from xkd import tracking
from xkd.data import manifest as manifests
from xkd.data.loader import eval_loader, train_loader
from xkd.downstream import knn, linear, metrics
from xkd.downstream.features import Clips, extract
from xkd.errors import UserError
from xkd.params import Params, Recipe, canonical
from xkd.training.export import load_encoders


@dataclass
class Results:
    """Collects what the predictions of each probe are worth."""

    test: Clips
    metrics: dict[str, float] = field(default_factory=dict)
    chosen: dict[str, float] = field(default_factory=dict)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    correct: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)

    def add(self, name: str, modality: str, scores: np.ndarray, classes: np.ndarray) -> None:
        """Metrics of one probe, e.g. "student.video.linear", from its scores (test clips, classes)."""
        self.predictions[name] = np.asarray(classes)[scores.argmax(1)]
        for k in (1, 5):
            if k < len(classes):
                ...
