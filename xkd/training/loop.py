"""The training loop of everything that is trained: pretraining, the supervised yardstick, finetuning."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from xkd.device import device
from xkd.errors import UserError
from xkd.models.encoder import Stack
from xkd.progress import say
from xkd.settings import Execution, Training
from xkd.training.distributed import ALONE
from xkd.training.faults import Faults
from xkd.training.graphs import GraphedStep
from xkd.training.learner import Learner
from xkd.training.random_state import random_state, set_random_state
from xkd.training.recorder import CurveRow, Recorder
from xkd.training.step import Step
from xkd.training.stop import StopRequests, leave

if TYPE_CHECKING:
    from xkd.data.loader import Batch, Loader

State = dict[str, Any]  # of a trainer, in types that `torch.load(..., weights_only=True)` reads
Kind = TypeVar("Kind", bound=Learner)


class Trainer(Generic[Kind]):
    """A learner, its optimiser, and the step that moves it.

    Args:
        learner: with its starting weights; moved to the device.
        loader: this process's share of the batches (`xkd.data.loader.train_loader`).
        settings: epochs, size of a batch, and how steps are executed.
        saving: says how often checkpoints are written.

    Attributes:
        epoch, batch: what comes next: that batch of that epoch.
        update: the step that changes the weights.
        on_step: called after every step with the number of steps that were done, 1: for showing progress.
        on_epoch: called with the number of epochs that were done; what it returns enters the row of the last one.
    """

    def __init__(self, learner: Kind, loader: Loader, settings: Execution, saving: Training) -> None:
        self.loader, self.settings, self.saving, self.group = loader, settings, saving, learner.group
        self.device = device() if self.group is ALONE else self.group.device
        if settings.batch_size % (self.group.size * settings.accumulate):
            raise UserError(
                f"{learner.place}.batch_size: {settings.batch_size} clips cannot be shared equally by "
                f"{self.group.size} processes in {settings.accumulate} parts ({learner.place}.accumulate) each"
            )
        self.learner = learner.to(self.device).train()
        for stack in (module for module in learner.modules() if isinstance(module, Stack)):
            stack.recompute = settings.checkpoint_activations
        self.optimiser = learner.optimiser()
        self.update = Step(
            learner,
            self.optimiser,
            settings.precision,
            settings.accumulate,
            self.group,
            settings.exchange,
            settings.compile,
        )
        self._take = GraphedStep(self.update) if self._records_steps() else self.update
        self.recorder = Recorder(learner.columns)
        self.faults = Faults(learner, self.update, int(settings.skip_budget * settings.epochs * len(loader)))
        self.epoch = self.batch = 0
        self.seconds = 0.0
        self.on_step: Callable[[int], None] = lambda _steps: None
        self.on_epoch: Callable[[int], CurveRow] = lambda _epochs: {}

    def _records_steps(self) -> bool:
        """Says if steps are taken as CUDA graphs, in which Python does nothing.

        It exchanges gradients between processes, keeps the scale of float16, and restores random states before
        activations are computed again.
        """
        by_python = self.group.size > 1 or self.settings.precision == "float16" or self.settings.checkpoint_activations
        return self.learner.cuda_graphs and self.device.type == "cuda" and not by_python

    def epochs(self, save: Callable[[State], None] = lambda state: None) -> Iterator[tuple[CurveRow, list[CurveRow]]]:
        """Trains to the end, yielding each epoch's averages and its steps' rows.

        Args:
            save: keeps a state as of `state_dict`: every `checkpoint_epochs`, every `checkpoint_minutes`, at the end,
                since files are still to be written, and when SIGTERM or SIGINT asks to stop. Called in the first
                process only.

        Raises:
            UserError: more losses or gradients that are not finite than `skip_budget` allows, naming the clips, or what
                the loader or `save` raises.
            SystemExit, KeyboardInterrupt: after a signal, once the step was finished and saved.
        """
        with StopRequests() as requests, closing(self.loader):
            self._saved = time.monotonic()
            while self.epoch < self.settings.epochs:
                self._train_epoch(requests, save)
                ended = self.recorder.end_epoch(self.epoch, self.on_epoch(self.epoch + 1))
                self.epoch, self.batch = self.epoch + 1, 0
                left = self.settings.epochs - self.epoch
                if not left or self.epoch % self.saving.checkpoint_epochs == 0:
                    self._save(save)
                yield ended

    def _train_epoch(self, requests: StopRequests, save: Callable[[State], None]) -> None:
        self.loader.set_epoch(self.epoch, self.batch)
        batches = iter(self.loader)
        while self.batch < len(self.loader):
            asked = time.perf_counter()
            batch = self._next(batches, requests, save)
            received = time.perf_counter()
            self.take_step(batch, received - asked, asked)
            self.seconds += time.perf_counter() - asked
            self.batch += 1
            self.on_step(1)
        self.faults.settle()

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
        due = self.group.first and time.monotonic() - self._saved >= 60 * self.saving.checkpoint_minutes
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

    def take_step(self, batch: Batch, waited: float = 0.0, asked: float | None = None) -> None:
        """Takes the next step.

        Args:
            batch: this process's share.
            waited: seconds that were spent on waiting for it.
            asked: when that began.

        Raises:
            UserError: too many losses or gradients were not finite.
        """
        asked = time.perf_counter() if asked is None else asked
        for group in self.optimiser.param_groups:
            group["lr"] = self.learner.learning_rate(group, self.step)
        logged = self._take(self.learner.inputs(batch, self.step))
        self.faults.add(self.step, batch, logged)
        values = {name: float(of[self.step]) for name, of in self.learner.schedules.items()} | logged
        values["data_wait_seconds"] = waited
        values["clips_per_second"] = len(batch.ids) * self.group.size / (time.perf_counter() - asked)
        if self.group.first:
            self.recorder.add(self.step, self.epoch, values)

    def _save(self, save: Callable[[State], None]) -> None:
        self.faults.settle()
        draws = self.group.gather(random_state())
        with self.group.together():
            if self.group.first:
                save({**self.state_dict(), "random": draws})
        self._saved = time.monotonic()

    def state_dict(self) -> State:
        return {
            "learner": self.learner.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.update.scaler.state_dict(),
            "recorder": self.recorder.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "batch_size": self.settings.batch_size,
            "faults": self.faults.state_dict(),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: State) -> None:
        """Goes on from `state_dict()`; within an epoch with the clip that comes next, if batches have another size.

        Raises:
            UserError: networks of another shape, or something is missing.
        """
        try:
            self._load(state)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise UserError(
                f"the checkpoint does not fit the networks of these settings ({reason}); "
                "XKD_RESUME=anew puts it aside and starts over"
            ) from error

    def _load(self, state: State) -> None:
        for group in state["optimiser"]["param_groups"]:
            group["fused"] = self.optimiser.defaults["fused"]  # a checkpoint may come from another kind of device
        self.learner.load_state_dict(state["learner"])
        self.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"] and self.update.scaler.is_enabled():
            self.update.scaler.load_state_dict(state["scaler"])
        if self.group.first:
            self.recorder.load_state_dict(state["recorder"])
        seen = int(state["batch"]) * int(state["batch_size"])
        self.epoch, self.batch = int(state["epoch"]), min(seen // self.settings.batch_size, len(self.loader))
        self.faults.load_state_dict(state["faults"])
        self.seconds = float(state["seconds"])
        draws = state.get("random", [])
        if self.group.rank < len(draws):
            set_random_state(draws[self.group.rank])

    def times(self) -> dict[str, float]:
        """Returns the seconds of training, of them those waiting for data, and the clips per second."""
        steps = self.recorder.steps
        waited = sum(row["data_wait_seconds"] for row in steps)
        clips = len(steps) * self.settings.batch_size
        return {
            "seconds": round(self.seconds, 2),
            "data_wait_seconds": round(waited, 2),
            "clips_per_second": round(clips / self.seconds, 1) if self.seconds else 0.0,
        }
