"""Watches a run while it trains and changes nothing of its result: a kNN probe of its encoders, and signs of collapse.

Only the first process watches. An edit of this module reruns nothing (`xkd.fingerprint`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from xkd.collapse import Alarm, alarms
from xkd.data.labels import classes_of, several
from xkd.data.loader import eval_loader
from xkd.downstream.features import Key, check_finite
from xkd.errors import UserError
from xkd.training.export import save_encoders
from xkd.training.random_state import random_state, set_random_state

if TYPE_CHECKING:
    from xkd.data.manifest import Manifest
    from xkd.training.loop import Trainer
    from xkd.training.pretraining import Pretraining

CLIPS = {"train": 2000, "test": 1000}  # a probe embeds so many of a split at most
PREFIX = "knn_"  # of its columns
EMBEDDED_AT_ONCE = 16  # clips
NEIGHBOURS = 20  # that vote, or as many as a class has training clips
LOOKS = 100  # for signs of collapse during a run


class Probe:
    """Judges frozen features by nearest neighbours after every `training.probe_epochs` epochs.

    Args:
        trainer: of the run.
        data: its manifest; labelled clips of the split `train` vote on those of the split `test`.
        seed: of the run.
        folder: where `training.keep_encoders` keeps the encoders of each probe.
    """

    def __init__(self, trainer: Trainer[Pretraining], data: Manifest, seed: int, folder: Path) -> None:
        self.trainer, self.data, self.seed, self.folder = trainer, data, seed, folder
        self.recipe, self.networks = trainer.learner.recipe, trainer.learner.networks
        self.every = self.recipe.training.probe_epochs
        self.picked = {split: _picked(data, split, most) for split, most in CLIPS.items()} if self.every else {}
        self.classes = len(classes_of(label for _, label in self.picked["train"])) if self.every else 0
        if self.every and not self._labelled:
            _warn(f"{data.path}: no kNN probe, which needs training clips with two labels or more, and test clips")

    def __call__(self, epochs: int) -> dict[str, float]:
        """Returns the accuracy of each encoder after so many epochs, as `knn_<owner>_<modality>`.

        It is top-1 in percent, and mean average precision where clips have several labels. There is none where no probe
        is due, or where it fails: training goes on, and a line on standard error says why.
        """
        if not self.every or epochs % self.every:
            return {}
        draws = random_state()
        self.networks.eval()
        try:
            if self.recipe.training.keep_encoders:
                folder = self.folder / f"epoch{epochs:04}"
                save_encoders(self.networks, self.recipe, self.seed, folder)
            with torch.compiler.set_stance("force_eager"):  # no graphs for shapes that training does not have
                return self._accuracies() if self._labelled else {}
        except (UserError, OSError) as error:
            _warn(f"epoch {epochs}: no kNN probe: {error}")
            return {}
        finally:
            self.networks.train()
            set_random_state(draws)

    @property
    def _labelled(self) -> bool:
        return self.classes > 1 and bool(self.picked["test"])

    def _accuracies(self) -> dict[str, float]:
        known, asked = self._features("train"), self._features("test")
        labels, truth = (np.array([label for _, label in self.picked[split]], dtype=str) for split in CLIPS)
        neighbours = max(1, min(NEIGHBOURS, len(labels) // self.classes))
        return {
            f"{PREFIX}{owner}_{modality}": _accuracy(features, labels, asked[owner, modality], truth, neighbours)
            for (owner, modality), features in known.items()
        }

    @torch.no_grad()  # not inference mode, which would mark what networks keep for later
    def _features(self, split: str) -> dict[Key, np.ndarray]:
        """Returns mean features (clips, D) of each encoder."""
        networks = self.networks
        encoders = {("student", m): encoder for m, encoder in networks.students.items()}
        encoders |= {("teacher", m): encoder for m, encoder in networks.teachers.items()}
        found: dict[Key, list[np.ndarray]] = {key: [] for key in encoders}
        modalities, numbers = tuple(networks.students), [number for number, _ in self.picked[split]]
        for batch in eval_loader(self.recipe, self.data.path, split, EMBEDDED_AT_ONCE, modalities, numbers=numbers):
            for (owner, modality), encoder in encoders.items():
                with self.trainer.update.autocast():
                    features = encoder.features(batch.views[modality][0].to(self.trainer.device))
                values = features.float().cpu().numpy()
                found[owner, modality].append(check_finite(values, batch.ids, f"{owner} {modality}"))
        return {key: np.concatenate(parts) for key, parts in found.items()}


def _picked(data: Manifest, split: str, most: int) -> list[tuple[int, str]]:
    """Returns number and label of at most so many labelled clips of a split, always the same."""
    labelled = [(number, label) for number, label in enumerate(data.split(split).labels) if label]
    chosen = np.random.default_rng(0).choice(len(labelled), min(most, len(labelled)), replace=False)
    return [labelled[place] for place in np.sort(chosen)]


def _accuracy(known: np.ndarray, labels: np.ndarray, asked: np.ndarray, truth: np.ndarray, neighbours: int) -> float:
    from xkd.downstream import knn, scores  # scikit-learn takes a second to load
    from xkd.downstream.labels import targets

    votes, classes = knn.classify(known, labels, asked, neighbours)
    if several(labels) or several(truth):
        return scores.mean_average_precision(votes, targets(truth, classes))
    return 100 * float(scores.hits(votes, classes, truth).mean())


class CollapseWatch:
    """Warns of teachers and students that collapse, once of each."""

    def __init__(self, trainer: Trainer[Pretraining]) -> None:
        self.trainer = trainer
        self._every = max(1, total_steps(trainer) // LOOKS)
        self._known: set[tuple[str, str]] = set()

    def look(self) -> dict[str, float]:
        """Returns the steps of new alarms, by names for MLflow.

        It looks at the curves a hundred times a run, since a GPU is waited for then.
        """
        if self.trainer.step % self._every:
            return {}
        new = [alarm for alarm in alarms_of(self.trainer) if alarm.about not in self._known]
        for alarm in new:
            _warn(f"step {alarm.step} of {total_steps(self.trainer)}: {alarm}; see docs/long-runs.md")
        self._known |= {alarm.about for alarm in new}
        return {f"{verdict} at step, {owner}": alarm.step for alarm in new for verdict, owner in [alarm.about]}


def alarms_of(trainer: Trainer[Pretraining]) -> list[Alarm]:
    """Returns the alarms of a run so far."""
    logits, columns = trainer.learner.recipe.model.head.out, trainer.learner.objective.columns
    return alarms(trainer.recorder.rows(), columns, logits, total_steps(trainer))


def total_steps(trainer: Trainer[Pretraining]) -> int:
    """Returns the number of steps of the whole run."""
    return len(trainer.loader) * trainer.settings.epochs


def _warn(line: str) -> None:
    print(f"xkd: warning: {line}", file=sys.stderr, flush=True)
