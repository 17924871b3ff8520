"""The protocols of evaluation: probes of frozen features, and full finetuning (paper section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xkd.data.loader import eval_loader, train_loader
from xkd.data.manifest import Manifest
from xkd.downstream import knn, linear
from xkd.downstream.features import Clips, Key, device, extract
from xkd.downstream.finetune import class_names, finetune
from xkd.downstream.layer import train_layer
from xkd.downstream.metrics import Scores
from xkd.progress import track
from xkd.settings import Finetune, Layer, Linear, Recipe, Svm, Task

Result = tuple[Clips, list[Scores], dict[str, float]]


@dataclass(frozen=True)
class Job:
    """The encoders of a run, the clips to judge them on, and how.

    Attributes:
        task: folds, and views per clip.
        settings: of the task's protocol.
        batch_size: clips per forward pass.
    """

    encoders: dict[Key, object]
    recipe: Recipe
    seed: int
    manifest: Manifest
    path: Path
    task: Task
    settings: Linear | Svm | Layer | Finetune
    batch_size: int

    @property
    def folds(self) -> tuple[str | None, ...]:
        """Official folds to go through; one that is None: the column split."""
        return self.task.folds or (None,)

    def ids(self, split: str, fold: str | None) -> list[str]:
        """Usable clips of a split, in order."""
        return self.manifest.split(split, fold).ids

    def extract(self, networks: dict, split: str | None, augmented: int | None = None) -> Clips:
        """Outputs of `networks` for every clip of a split (None: of all), for each view; see `eval_loader`."""
        modalities = sorted({modality for _, modality in networks})
        options = {"clips": self.task.clips, "crops": self.task.crops, "augmented": augmented}
        loader = eval_loader(self.recipe, self.path, split, self.batch_size, modalities, **options)
        rows = self.manifest.split(split).rows if split else self.manifest.rows
        return extract(networks, track(loader, f"{split or 'all'} clips"), rows)


def probe_frozen(job: Job) -> Iterator[tuple[str | None, Result]]:
    """Linear probe (and with protocol linear kNN) of each encoder, and of both modalities of an owner together.

    Features are extracted once, whatever the number of folds.

    Yields:
        Fold, its test clips, scores of each probe, and what was chosen on training clips (`<name>.C`).
    """
    encoders = {key: e.to(device()) for key, e in job.encoders.items() if key[0] in job.settings.encoders}
    networks = {key: encoder.features for key, encoder in encoders.items()}
    if job.task.folds:
        train = test = job.extract(networks, None)
    else:
        train, test = job.extract(networks, "train"), job.extract(networks, "test")
    if job.task.train_clips > 1:
        train = _side_by_side([job.extract(networks, None, augmented=i) for i in range(job.task.train_clips)])
    for fold in job.folds:
        yield fold, _probe(job, train.take(job.ids("train", fold)), test.take(job.ids("test", fold)))


def _probe(job: Job, train: Clips, test: Clips) -> Result:
    scores, chosen, settings = [], {}, job.settings
    sets = list(_feature_sets(train.outputs, test.outputs))
    for owner, modality, features, test_features in track(sets, f"{job.task.protocol} probes"):
        # Each view of a training clip is an example; a test clip's score is the mean over its views.
        clips, views, _ = test_features.shape
        every = features.reshape(-1, features.shape[-1])
        labels, items = (np.repeat(train.labels, features.shape[1]), train.items_of(modality))
        items = [np.repeat(names, features.shape[1]) for names in items]
        flat, test_labels = test_features.reshape(clips * views, -1), np.repeat(test.labels, views)
        method = job.task.protocol
        if isinstance(settings, Layer):
            values, classes = train_layer(every, labels, flat, settings, job.seed)
        else:
            values, classes, c = linear.probe(every, labels, items, flat, settings, test_labels)
            chosen[f"{owner}.{modality}.{method}.C"] = c
        scores.append(Scores(f"{owner}.{modality}.{method}", _mean(values, clips), classes))
        if isinstance(settings, Linear):
            values, classes = knn.classify(every, labels, flat, settings.neighbours)
            scores.append(Scores(f"{owner}.{modality}.knn", _mean(values, clips), classes))
    return test, scores, chosen


def finetune_students(job: Job) -> Iterator[tuple[str | None, Result]]:
    """Finetunes the student encoder of each modality that the run has; yields as `probe_frozen`."""
    students = {modality: encoder for (owner, modality), encoder in job.encoders.items() if owner == "student"}
    for fold in job.folds:
        size = min(job.settings.batch_size, len(job.ids("train", fold)))
        loader = train_loader(
            job.recipe, job.path, job.seed, list(students), local_views=False, fold=fold, batch_size=size
        )
        models = finetune(students, loader, job.settings, job.seed)
        networks = {("student", modality): model for modality, model in models.items()}
        test = job.extract(networks, None if fold else "test").take(job.ids("test", fold))
        classes = class_names(loader.classes)
        means = {key: values.mean(1) for key, values in test.outputs.items()}
        yield fold, (test, [Scores(f"{o}.{m}.finetune", values, classes) for (o, m), values in means.items()], {})


PROTOCOLS = {"linear": probe_frozen, "svm": probe_frozen, "layer": probe_frozen, "finetune": finetune_students}


def _feature_sets(train: dict[Key, np.ndarray], test: dict[Key, np.ndarray]):
    """Owner, modality, training and test features (clips, views, D): of each encoder, then of both of an owner."""
    for owner in sorted({owner for owner, _ in train}):
        keys = [(owner, modality) for modality in ("video", "audio") if (owner, modality) in train]
        for key in keys:
            yield *key, train[key], test[key]
        if len(keys) == 2:
            yield owner, "both", *(_joined(*(part[key] for key in keys)) for part in (train, test))


def _joined(video: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """Both modalities of each view side by side; all crops of a moment go with its sound."""
    audio = np.repeat(audio, video.shape[1] // audio.shape[1], axis=1)
    flat = linear.concatenate(*(part.reshape(-1, part.shape[-1]) for part in (video, audio)))
    return flat.reshape(*video.shape[:2], -1)


def _mean(values: np.ndarray, clips: int) -> np.ndarray:
    return values.reshape(clips, -1, values.shape[-1]).mean(1)


def _side_by_side(parts: list[Clips]) -> Clips:
    outputs = {key: np.concatenate([part.outputs[key] for part in parts], axis=1) for key in parts[0].outputs}
    return Clips(parts[0].ids, parts[0].labels, parts[0].items, outputs)
