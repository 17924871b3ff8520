"""The two protocols of evaluation: probes of frozen features, and full finetuning (paper section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xkd.data.loader import eval_loader, train_loader
from xkd.data.manifest import Manifest
from xkd.downstream import knn, linear
from xkd.downstream.features import Clips, Key, device, extract
from xkd.downstream.finetune import finetune
from xkd.downstream.metrics import Scores
from xkd.progress import track
from xkd.settings import Evaluate, Recipe


@dataclass(frozen=True)
class Job:
    """The encoders of a run and the clips to judge them on."""

    encoders: dict[Key, object]
    recipe: Recipe
    seed: int
    manifest: Manifest
    path: Path
    settings: Evaluate

    def extract(self, networks: dict, split: str) -> Clips:
        """Outputs of `networks` for every clip of a split."""
        modalities = sorted({modality for _, modality in networks})
        loader = eval_loader(self.recipe, self.path, split, self.settings.batch_size, modalities)
        return extract(networks, track(loader, f"{split} clips"), self.manifest.split(split).rows)


def probe_frozen(job: Job) -> tuple[Clips, list[Scores], dict[str, float]]:
    """Linear probe and kNN of each encoder, and of both modalities of an owner together.

    Returns:
        The test clips, scores of each probe, and what was chosen on training clips (`<name>.C`).
    """
    encoders = {key: e.to(device()) for key, e in job.encoders.items() if key[0] in job.settings.linear.encoders}
    networks = {key: encoder.features for key, encoder in encoders.items()}
    train, test = job.extract(networks, "train"), job.extract(networks, "test")
    scores, chosen = [], {}
    for owner, modality, features, test_features in _feature_sets(train.outputs, test.outputs):
        settings, name = job.settings.linear, f"{owner}.{modality}"
        values, classes, chosen[f"{name}.linear.C"] = linear.probe(
            features, train.labels, train.items_of(modality), test_features, settings
        )
        scores.append(Scores(f"{name}.linear", values, classes))
        scores.append(Scores(f"{name}.knn", *knn.classify(features, train.labels, test_features, settings.neighbours)))
    return test, scores, chosen


def finetune_students(job: Job) -> tuple[Clips, list[Scores], dict[str, float]]:
    """Finetunes the student encoder of each modality that the run has; returns as `probe_frozen`."""
    students = {modality: encoder for (owner, modality), encoder in job.encoders.items() if owner == "student"}
    settings = job.settings.finetune
    size = min(settings.batch_size, len(job.manifest.split("train").rows))
    loader = train_loader(job.recipe, job.path, job.seed, list(students), local_views=False, batch_size=size)
    models = finetune(students, loader, settings, job.seed)
    test = job.extract({("student", modality): model for modality, model in models.items()}, "test")
    scores = [Scores(f"{o}.{m}.finetune", values, np.array(loader.classes)) for (o, m), values in test.outputs.items()]
    return test, scores, {}


PROTOCOLS = {"linear": probe_frozen, "finetune": finetune_students}


def _feature_sets(train: dict[Key, np.ndarray], test: dict[Key, np.ndarray]):
    """Owner, modality, training and test features: of each encoder, then of both modalities of an owner together."""
    for owner in sorted({owner for owner, _ in train}):
        keys = [(owner, modality) for modality in ("video", "audio") if (owner, modality) in train]
        for key in keys:
            yield *key, train[key], test[key]
        if len(keys) == 2:
            yield owner, "both", *(linear.concatenate(*(part[key] for key in keys)) for part in (train, test))
