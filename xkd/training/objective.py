"""The objective, equation (1) of the paper: the weighted average of its terms, each a file of `xkd.objectives`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from xkd import registry
from xkd.errors import UserError
from xkd.logged import LoggedColumn
from xkd.models.networks import Networks
from xkd.objectives.alignment import Alignment
from xkd.objectives.distillation import Distillation
from xkd.objectives.reconstruction import Reconstruction
from xkd.objectives.spread import SPREAD_COLUMNS
from xkd.objectives.supervised import Supervised
from xkd.objectives.term import Outputs, RunSizes, Term, Values

if TYPE_CHECKING:  # the step runs in other projects, which may lack pydantic
    from xkd.recipe import Recipe
    from xkd.settings import ObjectiveSettings

OWN_TERMS: tuple[type[Term], ...] = (Reconstruction, Distillation, Alignment, Supervised)
OWN_COLUMNS = (*(column for term in OWN_TERMS for column in term.columns), *SPREAD_COLUMNS)


class Objective(nn.Module):
    """L = (w_1 L_1 + w_2 L_2 + ...) / (w_1 + w_2 + ...); by default (5 L_ae + 1 L_kd + 1 L_da) / (5 + 1 + 1).

    Args:
        networks: students and teachers.
        settings: group `objective` of the settings.
        weights: of each term, by its name in `xkd.registry.terms`; no other term is computed.
        sizes: what the terms are built for.

    Raises:
        UserError: two terms log a column of the same name.
    """

    def __init__(
        self, networks: Networks, settings: ObjectiveSettings, weights: Mapping[str, float], sizes: RunSizes
    ) -> None:
        super().__init__()
        self.networks, self.settings, self.weights = networks, settings, weights
        # A plugin's term gets its own settings, ours get the whole group.
        terms = {name: registry.terms[name](settings.plugged.get(name, settings), sizes) for name in weights}
        self.terms = cast(dict[str, Term], nn.ModuleDict(terms))
        _check_columns(self.columns)

    def forward(self, outputs: Outputs, whole: Outputs | None = None) -> tuple[Tensor, Values]:
        """Computes equation (1) from the networks' outputs, in float32.

        Args:
            outputs: of a part of the batch.
            whole: the same with features and logits of the whole batch, for terms that compare clips.

        Returns:
            The objective, and every loss and diagnostic.
        """
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            values = {
                name: term(whole or outputs if term.compares_clips else outputs) for name, term in self.terms.items()
            }
            weighted = [weight * values[name].loss for name, weight in self.weights.items()]
            total = reduce(Tensor.add, weighted) / sum(self.weights.values())
        _check_declared(self.terms, values)
        losses = {"loss": total} | {column: loss for one in values.values() for column, loss in one.losses.items()}
        return total, Values(losses, {k: v for one in values.values() for k, v in one.diagnostics.items()})

    @torch.no_grad()
    def finish(self, teacher_BK: dict[str, Tensor]) -> dict[str, Tensor]:
        """Lets the terms update what they keep, once all parts of the batch have used it; returns more diagnostics."""
        return {column: value for term in self.terms.values() for column, value in term.finish(teacher_BK).items()}

    @property
    def compares_clips(self) -> bool:
        """Says if a term needs the whole batch at once; the others are averages over clips."""
        return any(term.compares_clips for term in self.terms.values())

    @property
    def masks(self) -> bool:
        """Says if students see only a part of the global view's patches."""
        return all(term.masks for term in self.terms.values())

    @property
    def columns(self) -> tuple[LoggedColumn, ...]:
        """Everything that a run logs beside its schedules: the columns of all our own terms, then those of plugins."""
        plugged = [term for name, term in self.terms.items() if name not in registry.terms.own]
        return (*OWN_COLUMNS, *(column for term in plugged for column in term.columns))


def run_objective(recipe: Recipe, networks: Networks, classes: int, seed: int = 0) -> Objective:
    """Makes the objective of a run.

    Args:
        classes: number of labels in the data.
        seed: of parameters that terms have themselves; the global random state is left alone.
    """
    sizes = RunSizes(tuple(networks.students), recipe.model.width, recipe.model.head.out, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Objective(networks, recipe.objective, recipe.weights, sizes)


def _check_columns(columns: tuple[LoggedColumn, ...]) -> None:
    twice = [name for name, count in Counter(["loss", *(column.name for column in columns)]).items() if count > 1]
    if twice:
        raise UserError(f"objective: two terms log a column '{twice[0]}'; rename that of your term")


def _check_declared(terms: dict[str, Term], values: dict[str, Values]) -> None:
    for name, one in values.items():
        unknown = {*one.losses, *one.diagnostics} - {column.name for column in terms[name].columns}
        if unknown:
            raise UserError(f"objective term {name}: logs '{min(unknown)}', which is none of its `columns`")
