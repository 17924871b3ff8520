"""The training loop of every objective, the supervised yardstick's too."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xkd.errors import UserError
from xkd.models.encoder import Stack
from xkd.models.networks import Networks
from xkd.progress import say
from xkd.recipe import Recipe
from xkd.settings import Training
from xkd.training.distributed import ALONE, TrainingGroup
from xkd.training.objective import run_objective
from xkd.training.optimiser import make_optimiser
from xkd.training.random_state import random_state, set_random_state
from xkd.training.recorder import CurveRow, Recorder
from xkd.training.schedules import schedules
from xkd.training.sharing import Inputs, faulty_clips
from xkd.training.step import NotFinite, Step
from xkd.training.stop import StopRequests, leave

if TYPE_CHECKING:
    from xkd.data.loader import Batch, Loader

State = dict[str, Any]  # of a trainer, in types that `torch.load(..., weights_only=True)` reads


class Trainer:
    """Networks, optimiser and schedules of one run, and the step that moves them.

    Args:
        recipe: effective settings (`xkd.settings.Recipe`).
        networks: starting weights (`xkd.training.build.build_networks`).
        loader: this process's share of the batches (`xkd.data.loader.train_loader`).
        seed: of the masks.
        group: the processes that share each batch.

    Attributes:
        epoch, batch: what comes next: that batch of that epoch.
        update: the step that changes the weights.
        on_step: called after every step with the number of steps that were done, 1: for showing progress.
        on_epoch: called with the number of epochs that were done; what it returns enters the row of the last one.
    """

    def __init__(
        self, recipe: Recipe, networks: Networks, loader: Loader, seed: int, group: TrainingGroup = ALONE
    ) -> None:
        self.recipe, self.loader, self.seed, self.group = recipe, loader, seed, group
        gpu = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.device = gpu if group is ALONE else group.device
        self.networks = networks
        self.objective = run_objective(recipe, networks, len(loader.classes), seed).to(self.device).train()
        training = recipe.training
        if training.batch_size % (group.size * training.accumulate):
            raise UserError(
                f"training.batch_size: {training.batch_size} clips cannot be shared equally by {group.size} processes "
                f"in {training.accumulate} parts (training.accumulate) each"
            )
        self._set_up_blocks(training)
        self.optimiser = make_optimiser(self.objective, training.learning_rate, training.betas, training.weight_decay)
        self.update = Step(
            self.objective, self.optimiser, training.clip_gradient, training.precision, training.accumulate, group
        )
        self.schedules = schedules(training, recipe.objective, len(loader))
        self.recorder = Recorder(self.objective.columns)
        self.epoch = self.batch = 0
        self.seconds = 0.0
        self.on_step: Callable[[int], None] = lambda _steps: None
        self.on_epoch: Callable[[int], CurveRow] = lambda _epochs: {}

    def _set_up_blocks(self, training: Training) -> None:
        for stack in (module for module in self.objective.modules() if isinstance(module, Stack)):
            stack.recompute = training.checkpoint_activations
            for block in stack.blocks if training.compile else ():
                block.compile()

    def epochs(self, save: Callable[[State], None] = lambda state: None) -> Iterator[tuple[CurveRow, list[CurveRow]]]:
        """Trains to the end, yielding each epoch's averages and its steps' rows.

        Args:
            save: keeps a state as of `state_dict`: every `checkpoint_epochs`, every `checkpoint_minutes`, at the end,
                since a run's files are still to be written, and when SIGTERM or SIGINT asks to stop. Called in the
                first process only.

        Raises:
            UserError: a loss or gradient that is not finite, naming the clips, or what the loader or `save` raises.
            SystemExit, KeyboardInterrupt: after a signal, once the step was finished and saved.
        """
        with StopRequests() as requests:
            self._saved = time.monotonic()
            while self.epoch < self.recipe.training.epochs:
                self._train_epoch(requests, save)
                ended = self.recorder.end_epoch(self.epoch, self.on_epoch(self.epoch + 1))
                self.epoch, self.batch = self.epoch + 1, 0
                left = self.recipe.training.epochs - self.epoch
                if not left or self.epoch % self.recipe.training.checkpoint_epochs == 0:
                    self._save(save)
                yield ended

    def _train_epoch(self, requests: StopRequests, save: Callable[[State], None]) -> None:
        self.loader.set_epoch(self.epoch, self.batch)
        batches = iter(self.loader)
        while self.batch < len(self.loader):
            asked = time.perf_counter()
            batch = self._next(batches, requests, save)
            received = time.perf_counter()
            values = self._step(batch, self.step)
            now = time.perf_counter()
            values["data_wait_seconds"] = received - asked
            values["clips_per_second"] = len(batch.ids) * self.group.size / (now - asked)
            self.recorder.add(self.step, self.epoch, values)
            self.seconds += now - asked
            self.batch += 1
            self.on_step(1)

    @property
    def step(self) -> int:
        """Number of the next step, from 0."""
        return self.epoch * len(self.loader) + self.batch

    def _next(self, batches: Iterator[Batch], requests: StopRequests, save: Callable[[State], None]) -> Batch:
        """Returns the next batch; between two steps is also where processes agree to save or to stop."""
        problem = None
        try:
            batch = next(batches)
        except UserError as error:
            problem = error
        except RuntimeError:  # a signal that reaches all of a job may have taken the loader's processes
            if not requests.signal:
                raise
        due = self.group.first and time.monotonic() - self._saved >= 60 * self.recipe.training.checkpoint_minutes
        failed, stop, saves = self.group.most(problem is not None, requests.signal or 0, due)
        if stop:
            self._save(save)
            if self.group.first:
                name = signal.Signals(stop).name
                say(f"stopped by {name}; saved: the same command goes on with step {self.step}")
            self.group.leave_to_first(128 + stop)
            leave(signal.Signals(stop))
        if failed:
            with self.group.together():
                if problem:
                    raise problem
        if saves:
            self._save(save)
        return batch

    def _step(self, batch: Batch, step: int) -> dict[str, float | Tensor]:
        scheduled = {name: float(values[step]) for name, values in self.schedules.items()}
        for group in self.optimiser.param_groups:
            group["lr"] = scheduled["learning_rate"]
        inputs = self.inputs(batch, step)
        momentum = {m: scheduled["ema_momentum"] for m in self.networks.teachers}
        hold_last_layer = self.epoch < self.recipe.training.freeze_last_layer_epochs
        try:
            logged = self.update(inputs, momentum, hold_last_layer)
        except NotFinite as error:
            self._stop(batch, inputs, step, error)
            raise
        if not self.networks.teachers:
            scheduled = {"learning_rate": scheduled["learning_rate"]}
        return {**scheduled, **logged}

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Returns what the objective gets of this process's share of a batch."""
        views = {
            m: [view.to(self.device, non_blocking=True) for view in batch.views[m]] for m in self.networks.students
        }
        ranks = self.ranks(len(batch.ids) * self.group.size, step) if self.objective.masks else {}
        temperatures = {m: float(self.schedules[f"teacher_temperature_{m}"][step]) for m in views}
        labels_B = batch.labels.to(self.device)
        return Inputs(views, {m: self.group.share(of) for m, of in ranks.items()}, temperatures, labels_B)

    def _stop(self, batch: Batch, inputs: Inputs, step: int, problem: NotFinite) -> None:
        """Ends the run with the names of the clips that are at fault."""
        with self.update.autocast():
            parts = inputs.parts(self.recipe.training.accumulate)
            rows = torch.cat([faulty_clips(self.objective, part) for part in parts]).tolist()
        found = [name for name, faulty in zip(batch.ids, rows, strict=True) if faulty]
        own, everyones = self.group.gather(found), self.group.gather(batch.ids)
        clips = [name for names in (own if any(own) else everyones) for name in names]
        terms = ", ".join(f"{name} {value.item():g}" for name, value in problem.logged.items())
        with self.group.together():
            raise UserError(
                f"step {step}: the {problem.what} is not finite ({terms}); nothing was updated, and the last "
                f"checkpoint is as it was. {'Clips' if any(own) else 'All clips of the batch'}: {', '.join(clips)}"
            )

    def ranks(self, clips: int, step: int) -> dict[str, Tensor]:
        """Draws an order of each clip's patches from (seed, step): the same after resuming, whatever the processes."""
        generator = torch.Generator().manual_seed((self.seed << 32) + step)
        shapes = {m: (clips, encoder.tokens) for m, encoder in self.networks.students.items()}
        return {m: torch.rand(shape, generator=generator).to(self.device) for m, shape in shapes.items()}

    def _save(self, save: Callable[[State], None]) -> None:
        draws = self.group.gather(random_state())
        with self.group.together():
            if self.group.first:
                save({**self.state_dict(), "random": draws})
        self._saved = time.monotonic()

    def state_dict(self) -> State:
        return {
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.update.scaler.state_dict(),
            "recorder": self.recorder.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "batch_size": self.recipe.training.batch_size,
            "skipped": self.update.skipped,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: State) -> None:
        """Goes on from `state_dict()`; within an epoch with the clip that comes next, if batches have another size.

        Raises:
            UserError: networks of another shape.
        """
        try:
            self.objective.load_state_dict(state["objective"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"the checkpoint does not fit the networks of these settings ({str(error).splitlines()[0]}); "
                "XKD_RESUME=anew puts it aside and starts over"
            ) from error
        if state["scaler"] and self.update.scaler.is_enabled():
            self.update.scaler.load_state_dict(state["scaler"])
        self.recorder.load_state_dict(state["recorder"])
        seen = state["batch"] * state["batch_size"]
        self.epoch, self.batch = state["epoch"], min(seen // self.recipe.training.batch_size, len(self.loader))
        self.update.skipped, self.seconds = state["skipped"], state["seconds"]
        draws = state.get("random", [])
        if self.group.rank < len(draws):
            set_random_state(draws[self.group.rank])

    def times(self) -> dict[str, float]:
        """Returns the seconds of training, of them those waiting for data, and the clips per second."""
        steps = self.recorder.steps
        waited = sum(row["data_wait_seconds"] for row in steps)
        clips = len(steps) * self.recipe.training.batch_size
        return {
            "seconds": round(self.seconds, 2),
            "data_wait_seconds": round(waited, 2),
            "clips_per_second": round(clips / self.seconds, 1) if self.seconds else 0.0,
        }
