"""One evaluation: the encoders of a run, the clips to judge them on, and their features (paper section 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd
from torch import Tensor

from xkd import fingerprint, plugins, registry, runs
from xkd.data.loader import Batch, Loader, eval_loader
from xkd.data.manifest import Manifest
from xkd.device import device
from xkd.downstream.features import ClipOutputs, Key
from xkd.downstream.kept import KeptFits
from xkd.downstream.store import stored
from xkd.encoders.peer import PeerEncoder
from xkd.files import sha256
from xkd.models.encoder import Encoder
from xkd.models.head import ProjectionHead
from xkd.params import canonical
from xkd.progress import track
from xkd.recipe import Recipe
from xkd.settings import FrozenSettings, Settings, Task, Training
from xkd.settings.base import plugin_files
from xkd.training.distributed import ALONE, TrainingGroup
from xkd.training.recorder import CurveRow

Settings_co = TypeVar("Settings_co", bound=Settings, covariant=True)


@dataclass(frozen=True)
class EvaluationJob(Generic[Settings_co]):
    """The encoders of a run, the clips to judge them on, and how.

    Attributes:
        encoders, heads: by owner and modality; a run without teachers has no heads.
        weights: file of each encoder's weights; of a peer, the file that says which they are.
        recipe: the run's settings, with the task's views.
        manifest, path: the clips, and the file that lists them.
        dataset: name of the clips' data set.
        task: folds, and views per clip.
        settings: of the task's protocol.
        batch_size: clips per forward pass.
        precision: of frozen encoders.
        checkpoints: where a protocol keeps what an interrupted evaluation goes on from.
        resume: what to do with a checkpoint of other settings, data or code, see `xkd.training.checkpoint.unfinished`.
        saving: how often checkpoints are written.
        group: the processes of this job; more than one for protocols that `shares_batches` alone.
        curves: of what was trained, by fold a row for each epoch, for tracking.
        peers: encoders that are not ours, of a row that has no other ones.
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
    precision: str = "float32"
    checkpoints: Path = runs.CHECKPOINTS
    resume: str = "same"
    saving: Training = Training()
    group: TrainingGroup = ALONE
    curves: dict[str | None, list[CurveRow]] = field(default_factory=dict)
    peers: dict[Key, PeerEncoder] = field(default_factory=dict)

    @property
    def folds(self) -> tuple[str | None, ...]:
        """Official folds to go through; one that is None: the column split."""
        return self.task.folds or (None,)

    @property
    def modalities(self) -> list[str]:
        """The modalities that are judged, sorted."""
        return sorted({modality for _, modality in (*self.encoders, *self.peers)})

    def ids(self, split: str, fold: str | None) -> list[str]:
        """Returns the usable clips of a split, in order."""
        return self.manifest.split(split, fold).ids

    def rows(self, split: str | None) -> pd.DataFrame:
        """Returns the manifest's rows of a split (None: of all)."""
        return (self.manifest.split(split) if split else self.manifest).rows

    def loader(self, modalities: list[str], split: str | None, first: int = 0, augmented: int | None = None) -> Loader:
        """Returns the views of a split's clips (None: of all), from the first-th on; see `eval_loader`."""
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

    def features(self: EvaluationJob[FrozenSettings], split: str | None, augmented: int | None = None) -> ClipOutputs:
        """Returns frozen features of the encoders that the protocol judges, for each clip of a split (None: of all).

        For a protocol that `reads_tokens`, a feature is all patch tokens one after the other (N * D).
        """
        judged = {key: e.to(device()) for key, e in self.encoders.items() if key[0] in self.settings.encoders}
        networks: dict[Key, Callable[[Tensor], Tensor]] = {
            key: partial(_tokens, e) if self.reads_tokens else e.features for key, e in judged.items()
        }
        networks |= {key: p.to(device()).features for key, p in self.peers.items() if key[0] in self.settings.encoders}
        title = f"{split or 'all'} clips"

        def batches_from(first: int, keys: list[Key]) -> Iterator[Batch]:
            return track(self.loader(sorted({modality for _, modality in keys}), split, first, augmented), title)

        origins = {key: self.origin(key, augmented) for key in networks}
        folder = self.folder(split, augmented)
        return stored(folder, networks, origins, self.rows(split), batches_from, self.precision, half=self.reads_tokens)

    @property
    def reads_tokens(self) -> bool:
        """Whether the protocol reads all patch tokens, and not their mean."""
        return registry.protocols[self.task.protocol].reads_tokens

    @property
    def passes(self) -> list[tuple[str | None, int | None]]:
        """Split, and number of the augmented view, of each pass over clips for features; that of test clips is last."""
        train, test = (None, None) if self.task.folds else ("train", "test")
        augmented = range(self.task.train_clips) if self.task.train_clips > 1 else [None]
        return [*((train, number) for number in augmented), (test, None)]

    def frozen_folds(self: EvaluationJob[FrozenSettings]) -> Iterator[tuple[str | None, ClipOutputs, ClipOutputs]]:
        """Yields each fold with features of its training and its test clips; they are extracted once for all folds."""
        *train, test = (self.features(*one) for one in self.passes)
        for fold in self.folds:
            yield fold, train[0].take(self.ids("train", fold), *train[1:]), test.take(self.ids("test", fold))

    @cached_property
    def fits(self: EvaluationJob[FrozenSettings]) -> KeptFits:
        """Classifiers that are fitted already; they are kept until the evaluation is written."""
        decisive = {
            "features": [self.origin(key, None) for key in sorted({**self.encoders, **self.peers})],
            "task": self.task.model_dump(mode="json", exclude={"ablations", "dataset", "changes"}),
            "settings": self.settings.model_dump(mode="json"),
            "seed": self.seed,
            "plugins": plugins.code(plugin_files(self.task)),
            "code": fingerprint.module("xkd.stages.evaluate"),
        }
        return KeptFits(self._of_run / f"fits-{self.dataset}-{_short_hash(decisive)}")

    def origin(self, key: Key, augmented: int | None) -> dict[str, Any]:
        """Returns all that decides the features of an encoder."""
        recipe = self.recipe
        modules = ["data.loader", "encoders.folder", "downstream.store"]
        if key in self.peers:
            modules.append("encoders.peers")
        return {
            "weights": self._weight_hashes[key],
            "precision": self.precision,
            "manifest": self.manifest.hash,
            "views": {"clips": self.task.clips, "crops": self.task.crops, "augmented": augmented},
            "settings": recipe.model_dump(mode="json", include={"clips", "logmel", "views"}),
            "plugins": plugins.code(
                plugin_files(recipe.model) | plugin_files(recipe.views) | plugin_files(recipe.training)
            ),
            "code": [fingerprint.module(f"xkd.{name}") for name in modules],
        }

    @cached_property
    def _weight_hashes(self) -> dict[Key, str]:
        return {key: sha256(path) for key, path in self.weights.items()}

    def folder(self, split: str | None, augmented: int | None) -> Path:
        """Returns where features of these views lie: tasks of equal views share it, and no others do."""
        shown = {"task": self.task.views, "clips": self.task.clips, "crops": self.task.crops, "augmented": augmented}
        kind = "-tokens" if self.reads_tokens else ""
        return self._of_run / f"{self.dataset}-{split or 'all'}-{_short_hash(shown)}{kind}"

    @property
    def _of_run(self) -> Path:
        seed = 0 if self.peers else self.seed  # which is nothing to them: all seeds share their features
        return runs.FEATURES / runs.name_of(self.recipe.dataset, self.recipe.ablation, seed)


def _tokens(encoder: Encoder, x: Tensor) -> Tensor:
    """Returns the patch tokens of a view one after the other (B, N * D)."""
    tokens_BSD: Tensor = encoder(x)
    return tokens_BSD[:, 1:].flatten(1)


def _short_hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(values).encode()).hexdigest()[:8]
