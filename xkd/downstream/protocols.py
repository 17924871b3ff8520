"""The protocols of evaluation: probes of frozen features, retrieval, and full finetuning (paper section 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
import torch

from xkd import fingerprint
from xkd.data.loader import Batch, Loader, eval_loader, train_loader
from xkd.data.manifest import Manifest
from xkd.downstream import knn, linear, notes, retrieval
from xkd.downstream.features import Clips, Key, check_finite, device, extract
from xkd.downstream.finetune import class_names, finetune
from xkd.downstream.labels import classes_of, several
from xkd.downstream.layer import train_layer
from xkd.downstream.metrics import Retrieved, Scores
from xkd.downstream.store import stored
from xkd.errors import UserError
from xkd.files import sha256
from xkd.modalities import MODALITIES, OTHER
from xkd.models.encoder import Encoder
from xkd.models.head import ProjectionHead
from xkd.params import canonical
from xkd.progress import track
from xkd.recipe import Recipe
from xkd.settings import Finetune, Layer, Linear, Retrieval, Svm, Task

FeatureSet = tuple[str, str, np.ndarray, np.ndarray]
Result = tuple[Clips, list[Scores | Retrieved], dict[str, float | str], list[str]]
FEATURES = Path("features")
Probe = Linear | Svm | Layer
Frozen = Probe | Retrieval  # protocols that extract features
Settings_co = TypeVar("Settings_co", bound=Frozen | Finetune, covariant=True)


@dataclass(frozen=True)
class Job(Generic[Settings_co]):
    """The encoders of a run, the clips to judge them on, and how.

    Attributes:
        encoders, heads: by owner and modality; a run without teachers has no heads.
        weights: file of each encoder's weights.
        recipe: the run's settings, with the task's views.
        dataset: name of the clips' data set.
        task: folds, and views per clip.
        settings: of the task's protocol.
        batch_size: clips per forward pass.
    """

    encoders: dict[Key, Encoder]
    heads: dict[Key, ProjectionHead]
    weights: dict[Key, Path]
    recipe: Recipe
    seed: int
    manifest: Manifest
    path: Path
    dataset: str
    task: Task
    settings: Settings_co
    batch_size: int

    @property
    def folds(self) -> tuple[str | None, ...]:
        """Official folds to go through; one that is None: the column split."""
        return self.task.folds or (None,)

    def ids(self, split: str, fold: str | None) -> list[str]:
        """Usable clips of a split, in order."""
        return self.manifest.split(split, fold).ids

    def rows(self, split: str | None) -> pd.DataFrame:
        """The manifest's rows of a split (None: of all)."""
        return (self.manifest.split(split) if split else self.manifest).rows

    def loader(self, modalities: list[str], split: str | None, first: int = 0, augmented: int | None = None) -> Loader:
        """The views of a split's clips (None: of all), from the first-th on; see `eval_loader`."""
        return eval_loader(
            self.recipe,
            self.path,
            split,
            self.batch_size,
            modalities,
            clips=self.task.clips,
            crops=self.task.crops,
            augmented=augmented,
            first=first,
        )

    def features(self: Job[Frozen], split: str | None, augmented: int | None = None) -> Clips:
        """Frozen features of the encoders that the protocol judges, for every clip of a split (None: of all)."""
        networks = {
            key: e.to(device()).features for key, e in self.encoders.items() if key[0] in self.settings.encoders
        }
        title = f"{split or 'all'} clips"

        def batches_from(first: int, keys: list[Key]) -> Iterator[Batch]:
            return track(self.loader(sorted({modality for _, modality in keys}), split, first, augmented), title)

        origins = {key: self._origin(key, augmented) for key in networks}
        return stored(self._folder(split, augmented), networks, origins, self.rows(split), batches_from)

    def _origin(self, key: Key, augmented: int | None) -> dict[str, Any]:
        """All that decides the features of an encoder."""
        groups = self.recipe.model_dump(mode="json", include={"clips", "logmel", "views"})
        return {
            "weights": self._weight_hashes[key],
            "manifest": self.manifest.hash,
            "views": {"clips": self.task.clips, "crops": self.task.crops, "augmented": augmented},
            "settings": groups,
            "code": [
                fingerprint.module(f"xkd.{name}") for name in ("data.loader", "encoders.folder", "downstream.store")
            ],
        }

    @cached_property
    def _weight_hashes(self) -> dict[Key, str]:
        return {key: sha256(path) for key, path in self.weights.items()}

    def _folder(self, split: str | None, augmented: int | None) -> Path:
        """Of the features of these views: no two tasks that could share them miss each other, no two others meet."""
        shown = {"task": self.task.views, "clips": self.task.clips, "crops": self.task.crops, "augmented": augmented}
        views = hashlib.sha256(canonical(shown).encode()).hexdigest()[:8]
        run = Path(self.recipe.dataset, self.recipe.ablation, f"seed{self.seed}")
        return FEATURES / run / f"{self.dataset}-{split or 'all'}-{views}"


def probe_frozen(job: Job[Probe]) -> Iterator[tuple[str | None, Result]]:
    """Linear probe (and with protocol linear kNN) of each encoder, and of both modalities of an owner together.

    Yields:
        Fold, its test clips, scores of each probe, what was chosen on training clips (`<name>.C`), and notes on what
        makes them mean less.
    """
    for fold, train, test in _folds(job):
        yield fold, _probe(job, train, test)


def search(job: Job[Retrieval]) -> Iterator[tuple[str | None, Result]]:
    """Retrieval from each modality to the other, for every owner that has both; yields as `probe_frozen`."""
    for fold, train, test in _folds(job):
        results: list[Scores | Retrieved] = []
        space: dict[str, float | str] = {}
        relevant = retrieval.relevance(test.ids, test.labels, job.settings.relevant)
        share = retrieval.share(len(test.ids), relevant)
        for owner in sorted({owner for owner, _ in test.outputs}):
            keys = {modality: (owner, modality) for modality in OTHER}
            if not all(key in test.outputs for key in keys.values()):
                continue
            heads = all(key in job.heads for key in keys.values())
            space[f"{owner}.retrieval.space"] = "heads" if heads else "features"
            vectors = {
                m: retrieval.embeddings(*(_projected(job, key, part, heads) for part in (train, test)))
                for m, key in keys.items()
            }
            for query, other in OTHER.items():
                ranks, nearest = retrieval.retrieve(vectors[query], vectors[other], relevant)
                results.append(Retrieved(f"{owner}.{query}.retrieval", ranks, test.ids[nearest], share))
        if not results:
            raise UserError(
                f"{job.path}: {job.recipe.ablation} has no pair of encoders that could see both halves of these clips; "
                "leave it out of the task's `ablations`"
            )
        yield fold, (test, results, space, notes.of_gallery(len(test.ids)))


def _projected(job: Job[Retrieval], key: Key, clips: Clips, heads: bool) -> np.ndarray:
    """What the projection head makes of features (clips, views, D), or the features."""
    values = np.asarray(clips.outputs[key])
    if not heads:
        return values
    head, parts = job.heads[key].to(device()), torch.from_numpy(values).flatten(0, 1).split(4096)
    with torch.inference_mode():
        logits = torch.cat([head(part.to(device())).float().cpu() for part in parts])
    projected: np.ndarray = logits.unflatten(0, values.shape[:2]).numpy()
    return check_finite(projected, clips.ids, f"projection head of {key[0]} {key[1]}")


def _folds(job: Job[Frozen]) -> Iterator[tuple[str | None, Clips, Clips]]:
    """Training and test clips of each fold; features are extracted once, whatever the number of folds."""
    split = None if job.task.folds else "train"
    if job.task.train_clips > 1:
        train = _side_by_side([job.features(split, augmented=i) for i in range(job.task.train_clips)])
    else:
        train = job.features(split)
    test = job.features(None if job.task.folds else "test")
    for fold in job.folds:
        yield fold, train.take(job.ids("train", fold)), test.take(job.ids("test", fold))


def _probe(job: Job[Probe], train: Clips, test: Clips) -> Result:
    scores: list[Scores | Retrieved] = []
    chosen: dict[str, float | str] = {}
    remarks: list[str] = []
    settings = job.settings
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
            name = f"{owner}.{modality}.{method}"
            with notes.of_solver(name, _patience(settings)) as unfinished:
                values, classes, c = linear.probe(every, labels, items, flat, settings, test_labels)
            chosen[f"{name}.C"] = c
            remarks += unfinished
        scores.append(_scored(f"{owner}.{modality}.{method}", _mean(values, clips), classes, train.labels))
        if isinstance(settings, Linear):
            values, classes = knn.classify(every, labels, flat, settings.neighbours)
            scores.append(_scored(f"{owner}.{modality}.knn", _mean(values, clips), classes, train.labels))
            remarks += notes.of_neighbours(scores[-1].name, settings.neighbours, len(every))
    return test, scores, chosen, remarks


def finetune_encoders(job: Job[Finetune]) -> Iterator[tuple[str | None, Result]]:
    """Finetunes the student of each modality, or the teacher where a run was given one alone; yields as `probe_frozen`."""
    owners = {m: "student" if ("student", m) in job.encoders else "teacher" for _, m in job.encoders}
    chosen = {modality: job.encoders[owner, modality] for modality, owner in owners.items()}
    for fold in job.folds:
        size = min(job.settings.batch_size, len(job.ids("train", fold)))
        loader = train_loader(
            job.recipe, job.path, job.seed, list(chosen), local_views=False, fold=fold, batch_size=size
        )
        models = finetune(chosen, loader, job.settings, job.seed)
        networks = {(owners[modality], modality): model for modality, model in models.items()}
        split = None if fold else "test"
        views = track(job.loader(list(chosen), split), f"{split or 'all'} clips")
        test = extract(networks, views, job.rows(split)).take(job.ids("test", fold))
        classes = class_names(loader.classes)
        trained = job.manifest.split("train", fold).rows["label"].to_numpy(str)
        known = np.isin(classes, classes_of(trained))  # outputs of other labels were never trained
        means = {key: values.mean(1)[:, known] for key, values in test.outputs.items()}
        scores = [_scored(f"{o}.{m}.finetune", values, classes[known], trained) for (o, m), values in means.items()]
        yield fold, (test, list(scores), {}, [])


PROTOCOLS: dict[str, Callable[[Job[Any]], Iterator[tuple[str | None, Result]]]] = {
    "linear": probe_frozen,
    "svm": probe_frozen,
    "layer": probe_frozen,
    "retrieval": search,
    "finetune": finetune_encoders,
}


def _feature_sets(train: dict[Key, np.ndarray], test: dict[Key, np.ndarray]) -> Iterator[FeatureSet]:
    """Owner, modality, training and test features (clips, views, D): of each encoder, then of both of an owner."""
    for owner in sorted({owner for owner, _ in train}):
        keys = [(owner, modality) for modality in MODALITIES if (owner, modality) in train]
        for key in keys:
            yield *key, train[key], test[key]
        if len(keys) == 2:
            joined, test_joined = (_joined(*(part[key] for key in keys)) for part in (train, test))
            yield owner, "both", joined, test_joined


def _joined(video: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """Both modalities of each view side by side; all crops of a moment go with its sound."""
    audio = np.repeat(audio, video.shape[1] // audio.shape[1], axis=1)
    flat = linear.concatenate(*(part.reshape(-1, part.shape[-1]) for part in (video, audio)))
    return flat.reshape(*video.shape[:2], -1)


def _patience(settings: Linear | Svm) -> str:
    """The setting that lets a solver come to its end."""
    return "evaluate.svm.max_iter" if isinstance(settings, Svm) else "evaluate.linear.C"


def _scored(name: str, values: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> Scores:
    """Scores by a classifier of these training labels; where mean average precision is all that counts, as the file has them."""
    joined = several(labels)
    return Scores(name, values.astype(np.float32) if joined else values, classes, joined)


def _mean(values: np.ndarray, clips: int) -> np.ndarray:
    means: np.ndarray = values.reshape(clips, -1, values.shape[-1]).mean(1)
    return means


def _side_by_side(parts: list[Clips]) -> Clips:
    outputs = {key: np.concatenate([part.outputs[key] for part in parts], axis=1) for key in parts[0].outputs}
    return Clips(parts[0].ids, parts[0].labels, parts[0].items, outputs)
