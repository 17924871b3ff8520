"""Protocol `finetune`: encoder and a linear head on its mean token, trained with labels (paper section 4).

The engine of pretraining trains it, fold by fold. An interrupted fold goes on from its checkpoint. A finished fold
leaves its outputs for the test clips there until the evaluation is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from xkd import fingerprint
from xkd.data.labels import classes_of
from xkd.data.loader import Loader, eval_loader, train_loader
from xkd.downstream.features import Key, incomplete, of_rows, outputs_of
from xkd.downstream.finetune_learner import Classifiers
from xkd.downstream.job import EvaluationJob
from xkd.downstream.probes import clip_scores
from xkd.downstream.scores import Judged
from xkd.files import sha256
from xkd.models.encoder import Encoder
from xkd.params import flat
from xkd.progress import Advance, counter, say, track
from xkd.protocols import Column, Finetuning
from xkd.settings import Finetune, Training
from xkd.training import checkpoint
from xkd.training.distributed import ALONE, TrainingGroup
from xkd.training.loop import State, Trainer
from xkd.training.recorder import Recorder


@Finetuning.runs
def finetune_encoders(job: EvaluationJob[Finetune]) -> Iterator[Judged]:
    """Finetunes the student of each modality, or the teacher where a run was given one alone, in every fold.

    Every process trains on its share of the batches and judges its share of the test clips; the first one yields.
    """
    with ExitStack() as stack, job.group.together():
        if job.group.first:
            stack.enter_context(checkpoint.exclusive(job.checkpoints))
        exclusive = stack.pop_all()
    with exclusive:
        for fold in job.folds:
            outputs = Fold(job, fold).outputs()
            if job.group.first:
                yield _judged(job, fold, outputs)


def _judged(job: EvaluationJob[Finetune], fold: str | None, outputs: dict[Key, np.ndarray]) -> Judged:
    test = of_rows(job.manifest.split("test", fold).rows, outputs)
    classes = np.array(classes_of(job.manifest.rows["label"].to_numpy(str)))
    trained = job.manifest.split("train", fold).rows["label"].to_numpy(str)
    known = np.isin(classes, classes_of(trained))  # outputs of other labels were never trained
    scores = [
        clip_scores(Column(*key, "finetune"), values.mean(1)[:, known], classes[known], trained)
        for key, values in test.outputs.items()
    ]
    return Judged(fold, test, scores)


def finetuner(
    encoders: dict[str, Encoder],
    loader: Loader,
    settings: Finetune,
    seed: int,
    saving: Training | None = None,
    group: TrainingGroup = ALONE,
) -> Trainer[Classifiers]:
    """Makes the trainer of one classifier per modality.

    Args:
        encoders: per modality; left as they are.
        loader: this process's share of the training clips.
        settings: with the size of the loader's batches, of all processes together.
        seed: of heads and draws.
        saving: says how often checkpoints are written.
        group: the processes that share each batch.

    Raises:
        UserError: a batch that the processes cannot share equally.
    """
    return Trainer(Classifiers(encoders, loader, settings, seed, group), loader, settings, saving or Training())


@dataclass(frozen=True)
class Fold:
    """The finetuning of one fold."""

    job: EvaluationJob[Finetune]
    name: str | None

    def outputs(self) -> dict[Key, np.ndarray]:
        """Returns each classifier's outputs (clips, 1, classes) for the fold's test clips, means over their views.

        Trains first, unless that was done before. In other processes than the first, nothing is returned.
        """
        job = self.job
        state = checkpoint.shared(self.folder, self.identity, job.resume, job.group)
        if state is None or "outputs" not in state:
            trainer = self._trained(state)
            state = {"outputs": self._tested(trainer), "recorder": trainer.recorder.state_dict()}
            if job.group.first:
                self._keep(state)
                checkpoint.forget_previous(self.folder)
        if not job.group.first:
            return {}
        recorder = Recorder(())
        recorder.load_state_dict(state["recorder"])
        job.curves[self.name] = recorder.epochs
        return {key: state["outputs"][key[1]].numpy() for key in self.keys}

    @property
    def folder(self) -> Path:
        """Where checkpoints of this fold are."""
        return self.job.checkpoints / quote(self.name or "split", safe="")

    @property
    def keys(self) -> list[Key]:
        """Owner and modality of each encoder that is finetuned."""
        owners = {m: "student" if ("student", m) in self.job.encoders else "teacher" for _, m in self.job.encoders}
        return [(owner, modality) for modality, owner in owners.items()]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that decides the outputs."""
        job = self.job
        groups = job.recipe.model_dump(mode="json", include={"clips", "logmel", "views"})
        settings = {
            "task": job.task.model_dump(mode="json", exclude={"ablations", "changes", "folds"}),
            "finetune": job.settings.model_dump(mode="json", exclude=set(job.settings.HOW)),
            "weights": {"/".join(key): sha256(job.weights[key]) for key in self.keys},
        }
        code = {"code": fingerprint.module("xkd.downstream.finetune"), "torch": str(torch.__version__)}
        data = {"manifest": job.manifest.hash, "fold": self.name, "seed": job.seed}
        return flat(groups | settings | data | code)

    def _trained(self, state: State | None) -> Trainer[Classifiers]:
        job, group = self.job, self.job.group
        encoders = {modality: job.encoders[owner, modality] for owner, modality in self.keys}
        with group.together():
            size = self._batch_size()
            loader = train_loader(
                job.recipe,
                job.path,
                job.seed,
                list(encoders),
                local_views=False,
                fold=self.name,
                batch_size=size,
                shard=(group.rank, group.size),
            )
            settings = job.settings.model_copy(update={"batch_size": size})
            trainer = finetuner(encoders, loader, settings, job.seed, job.saving, group)
            if state:
                trainer.load_state_dict(state)
        if settings.base_batch_size and group.first:
            say(settings.learning_rate_rule)
        if state and group.first:
            say(f"continuing at step {trainer.step} (epoch {trainer.epoch}) from {self.folder}")
        with self._shown(settings.epochs * len(loader), trainer.step) as trainer.on_step:
            for _ in trainer.epochs(self._keep):
                pass
        trainer.learner.eval()
        return trainer

    def _shown(self, steps: int, done: int) -> AbstractContextManager[Advance]:
        title = "finetuning" if self.name is None else f"finetuning, fold {self.name}"
        return counter(title, steps, done) if self.job.group.first else nullcontext(lambda _steps: None)

    def _batch_size(self) -> int:
        """Returns the clips of a batch: fewer than the settings say, where a data set is smaller than that."""
        clips, wanted = len(self.job.ids("train", self.name)), self.job.settings.batch_size
        equal = self.job.group.size * self.job.settings.accumulate
        return wanted if clips >= wanted else max(clips // equal, 1) * equal

    def _keep(self, state: State) -> None:
        checkpoint.keep(self.folder, self.identity, self.job.settings.model_dump(mode="json"), state)

    @torch.inference_mode()
    def _tested(self, trainer: Trainer[Classifiers]) -> dict[str, Tensor]:
        """Runs the classifiers over the fold's test clips; all outputs arrive in the first process."""
        job, group, models = self.job, self.job.group, trainer.learner.models
        views = eval_loader(
            job.recipe,
            job.path,
            "test",
            job.batch_size,
            [*models],
            clips=job.task.clips,
            crops=job.task.crops,
            fold=self.name,
            shard=(group.rank, group.size),
        )
        networks = {key: models[key[1]] for key in self.keys}
        shown = track(views, "test clips") if group.first else views
        with group.together():
            batches = outputs_of(networks, shown, job.settings.precision)
            own = [
                (ids, {m: values.astype(np.float32).mean(1) for (_, m), values in of.items()}) for ids, of in batches
            ]
        ids: list[str] = []
        rows: dict[str, list[np.ndarray]] = {modality: [] for modality in models}
        for came, outputs in (batch for of_rank in group.to_first(own) for batch in of_rank):
            ids += came
            for modality, values in outputs.items():
                rows[modality].append(values)
        wanted = job.ids("test", self.name)
        if group.first and sorted(ids) != sorted(wanted):
            raise incomplete(ids, wanted)
        place = {id: number for number, id in enumerate(ids)}
        order = [place[id] for id in wanted] if group.first else []
        return {m: torch.from_numpy(np.concatenate(of)[order][:, None]) for m, of in rows.items() if of}
