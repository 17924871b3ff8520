"""Pretraining, the supervised yardstick too, as the engine takes it: settings to a learner, batches to its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xkd.models.networks import Networks
from xkd.recipe import Recipe
from xkd.training.distributed import ALONE, TrainingGroup
from xkd.training.learner import on_device
from xkd.training.loop import Trainer
from xkd.training.objective import run_objective
from xkd.training.optimiser import make_optimiser
from xkd.training.schedules import schedules
from xkd.training.sharing import Inputs, SharedObjective

if TYPE_CHECKING:
    from xkd.data.loader import Batch, Loader


class Pretraining(SharedObjective):
    """The objective of a run, and what each step gives it.

    Args:
        recipe: effective settings.
        networks: starting weights (`xkd.training.build.build_networks`).
        loader: of the training clips.
        seed: of the masks.
        group: the processes that share each batch.
    """

    def __init__(
        self, recipe: Recipe, networks: Networks, loader: Loader, seed: int, group: TrainingGroup = ALONE
    ) -> None:
        objective = run_objective(recipe, networks, len(loader.classes), seed)
        super().__init__(objective, recipe.training.clip_gradient, group)
        self.recipe, self.seed, self.steps_per_epoch = recipe, seed, len(loader)
        self.scheduled = schedules(recipe.training, recipe.objective, len(loader))
        rates = ("learning_rate",) if not networks.teachers else tuple(self.scheduled)
        self.schedules = {name: self.scheduled[name] for name in rates}
        self.cuda_graphs = recipe.training.cuda_graphs and not recipe.plugins

    def optimiser(self) -> torch.optim.Optimizer:
        """Makes AdamW for everything that the objective trains."""
        training = self.recipe.training
        return make_optimiser(self.objective, training.learning_rate, training.betas, training.weight_decay)

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Returns what the objective gets of this process's share of a batch."""
        views = {
            m: [view.to(self.device, non_blocking=True) for view in batch.views[m]] for m in self.networks.students
        }
        ranks = self.ranks(len(batch.ids) * self.group.size, step) if self.objective.masks else {}
        return Inputs(
            views,
            {m: on_device(self.group.share(order), self.device) for m, order in ranks.items()},
            {m: float(self.scheduled[f"teacher_temperature_{m}"][step]) for m in views},
            batch.labels.to(self.device, non_blocking=True),
            {m: float(self.scheduled["ema_momentum"][step]) for m in self.networks.teachers},
            step < self.recipe.training.freeze_last_layer_epochs * self.steps_per_epoch,
        )

    def ranks(self, clips: int, step: int) -> dict[str, Tensor]:
        """Draws an order of each clip's patches from (seed, step): the same after resuming, whatever the processes."""
        generator = torch.Generator().manual_seed((self.seed << 32) + step)
        shapes = {m: (clips, encoder.tokens) for m, encoder in self.networks.students.items()}
        return {m: torch.rand(shape, generator=generator) for m, shape in shapes.items()}


def pretrainer(
    recipe: Recipe, networks: Networks, loader: Loader, seed: int, group: TrainingGroup = ALONE
) -> Trainer[Pretraining]:
    """Makes the trainer of a run; arguments as of `Pretraining`.

    Raises:
        UserError: a batch that the processes cannot share equally.
    """
    learner = Pretraining(recipe, networks, loader, seed, group)
    return Trainer(learner, loader, recipe.training, recipe.training)
