"""The training loop: one class for pretraining and for the supervised yardstick."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from xkd.errors import UserError
from xkd.models.networks import Networks
from xkd.training import checkpoint
from xkd.training.losses import Objective, StepLosses
from xkd.training.optimiser import make_optimiser
from xkd.training.recorder import Recorder
from xkd.training.schedules import schedules
from xkd.training.step import update
from xkd.training.supervised import SupervisedObjective


class Trainer:
    """Networks, optimiser and schedules of one run, and the step that moves them.

    Args:
        recipe: effective settings (`xkd.settings.Recipe`).
        networks: starting weights (`xkd.training.build.build_networks`).
        loader: batches (`xkd.data.loader.train_loader`).
        seed: of the masks.

    Attributes:
        on_step: called after every step with the number of steps that were done, 1: for showing progress.
    """

    def __init__(self, recipe, networks: Networks, loader, seed: int) -> None:
        self.recipe, self.loader, self.seed = recipe, loader, seed
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.networks = networks
        self.supervised = recipe.training.mode == "supervised"
        if self.supervised:
            self.objective = SupervisedObjective(networks, recipe.model.width, len(loader.classes))
        else:
            self.objective = Objective(networks, recipe.objective, recipe.model.head.out)
        self.objective.to(self.device).train()
        training = recipe.training
        self.optimiser = make_optimiser(self.objective, training.learning_rate, training.betas, training.weight_decay)
        self.schedules = schedules(training, recipe.objective, len(loader))
        self.recorder = Recorder()
        self.epoch = 0
        self.seconds = 0.0
        self.on_step: Callable[[int], None] = lambda _steps: None

    def epochs(self, folder: Path, digest: str) -> Iterator[tuple[dict, list[dict]]]:
        """Trains to the end, yielding each epoch's averages and its steps' rows.

        Args:
            folder: where checkpoints go, every `checkpoint_epochs`.
            digest: of settings, data and code; stored with a checkpoint.

        Raises:
            UserError: a loss that is not finite, naming the clips of the batch.
        """
        epochs = self.recipe.training.epochs
        while self.epoch < epochs:
            started = time.perf_counter()
            self._train_epoch()
            self.seconds += time.perf_counter() - started
            ended = self.recorder.end_epoch(self.epoch)
            self.epoch += 1
            if self.epoch % self.recipe.training.checkpoint_epochs == 0 and self.epoch < epochs:
                checkpoint.save(folder, digest, self.state_dict())
            yield ended

    def _train_epoch(self) -> None:
        self.loader.set_epoch(self.epoch)
        step = self.epoch * len(self.loader)
        asked = time.perf_counter()
        for batch in self.loader:
            received = time.perf_counter()
            values = self._step(batch, step)
            now = time.perf_counter()
            values["data_wait_seconds"] = received - asked
            values["clips_per_second"] = len(batch.ids) / (now - asked)
            self.recorder.add(step, self.epoch, values)
            asked = now
            step += 1
            self.on_step(1)

    def _step(self, batch, step: int) -> dict[str, float | Tensor]:
        scheduled = {name: float(values[step]) for name, values in self.schedules.items()}
        for group in self.optimiser.param_groups:
            group["lr"] = scheduled["learning_rate"]
        losses = self._losses(batch, step, scheduled)
        if not torch.isfinite(losses.total):
            terms = ", ".join(f"{name} {value.item():g}" for name, value in losses.logged.items())
            raise UserError(
                f"step {step}: the loss is not finite ({terms}); nothing was updated. Clips: {', '.join(batch.ids)}"
            )
        norm = update(
            self.networks,
            self.optimiser,
            losses.total,
            self.recipe.training.clip_gradient,
            {m: scheduled["ema_momentum"] for m in self.networks.teachers},
            hold_last_layer=self.epoch < self.recipe.training.freeze_last_layer_epochs,
        )
        if not self.networks.teachers:
            scheduled = {"learning_rate": scheduled["learning_rate"]}
        return {**losses.logged, **scheduled, "gradient_norm": norm}

    def _losses(self, batch, step: int, scheduled: dict[str, float]) -> StepLosses:
        views = {
            m: [view.to(self.device, non_blocking=True) for view in getattr(batch, m)] for m in self.networks.students
        }
        low = self.recipe.training.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            if self.supervised:
                return self.objective(views, batch.labels.to(self.device))
            temperatures = {m: scheduled[f"teacher_temperature_{m}"] for m in ("video", "audio")}
            return self.objective(views, self.ranks(len(batch.ids), step), temperatures)

    def ranks(self, clips: int, step: int) -> dict[str, Tensor]:
        """A random order of each clip's patches, from (seed, step): the same after resuming."""
        generator = torch.Generator().manual_seed((self.seed << 32) + step)
        shapes = {m: (clips, encoder.positions.shape[1] - 1) for m, encoder in self.networks.students.items()}
        return {m: torch.rand(shape, generator=generator).to(self.device) for m, shape in shapes.items()}

    def state_dict(self) -> dict:
        return {
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "recorder": self.recorder.state_dict(),
            "epoch": self.epoch,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict) -> None:
        self.objective.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.recorder.load_state_dict(state["recorder"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]

    def times(self) -> dict[str, float]:
        """Seconds of training, of them waiting for data, and clips per second."""
        steps = self.recorder.steps
        waited = sum(row["data_wait_seconds"] for row in steps)
        clips = len(steps) * self.recipe.training.batch_size
        return {
            "seconds": round(self.seconds, 2),
            "data_wait_seconds": round(waited, 2),
            "clips_per_second": round(clips / self.seconds, 1) if self.seconds else 0.0,
        }
