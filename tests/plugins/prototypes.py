"""A protocol of one's own: each test clip gets the class whose mean of frozen features is nearest."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from xkd import registry
from xkd.protocols import Protocol
from xkd.settings import FrozenSettings


class PrototypeSettings(FrozenSettings):
    """Nearest class mean on frozen features."""

    scaled: bool = True


@registry.protocols.register("prototypes")
class Prototypes(Protocol):
    """Compares features with the mean of each class, by Euclidean distance."""

    Settings = PrototypeSettings
    methods: ClassVar = {"prototypes": "class means"}

    @staticmethod
    def run(job):
        """Yields the scores of each fold."""
        from xkd.downstream.probes import probed  # needs torch, which reading settings must not

        def fit(examples):
            scale = examples.train.std(0) + 1e-6 if job.settings.scaled else 1
            train, test = examples.train / scale, examples.test / scale
            classes = np.unique(examples.labels)
            means = np.stack([train[examples.labels == name].mean(0) for name in classes])
            distances = np.linalg.norm(test[:, None] - means, axis=2)
            return [examples.scores("prototypes", -distances, classes)]

        return probed(job, fit)
