"""Shares a batch between processes and parts, and combines their results into those of the batch.

Shapes: B clips, R rows (clips of all student views), K logits, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from xkd.models.networks import Networks
from xkd.objectives.spread import feature_spread
from xkd.objectives.term import Outputs
from xkd.training.distributed import ALONE, TrainingGroup
from xkd.training.forward import ViewTensors, run_networks
from xkd.training.learner import Learner, PartLosses, faulty_rows, over_parts
from xkd.training.objective import Objective

SHARED_OUTPUTS = ("features_BD", "student_RK", "teacher_BK")  # what terms that compare clips get of the whole batch


@dataclass(frozen=True)
class Inputs:
    """The inputs of the objective: a batch, or a part of it.

    Attributes:
        views: per modality the global view, then the local views, B rows each.
        ranks: per modality a (B, N) order of the global view's patches; the lowest stay visible; all do if empty.
        temperatures: of each modality's teacher.
        labels_B: class numbers, for training with labels.
        momentum: of each modality's teacher (EMA).
        hold_last_layer: leaves the heads' last layer as it is.
    """

    views: ViewTensors
    ranks: dict[str, Tensor] = field(default_factory=dict)
    temperatures: dict[str, float] = field(default_factory=dict)
    labels_B: Tensor | None = None
    momentum: dict[str, float] = field(default_factory=dict)
    hold_last_layer: bool = False

    def parts(self, count: int) -> list[Inputs]:
        """Returns the same in `count` parts of equally many clips."""
        views = {m: [view.chunk(count) for view in of] for m, of in self.views.items()}
        ranks = {m: of.chunk(count) for m, of in self.ranks.items()}
        labels = [None] * count if self.labels_B is None else self.labels_B.chunk(count)
        return [
            replace(
                self,
                views={m: [pieces[i] for pieces in of] for m, of in views.items()},
                ranks={m: pieces[i] for m, pieces in ranks.items()},
                labels_B=labels[i],
            )
            for i in range(count)
        ]


@dataclass
class ObjectiveLosses(PartLosses):
    """Adds to the losses of a part what is only logged, averaged in the same way, and rows for the whole batch."""

    diagnostics: dict[str, Tensor]
    features_BD: dict[str, Tensor]
    teacher_BK: dict[str, Tensor]


@dataclass
class Whole:
    """Outputs of all parts of a batch, of all processes, for terms that compare clips with each other.

    Attributes:
        blocks: by the name of the output and the modality one block of rows for each part, in an order that all
            processes share.
        part: the number of this part's block; its own rows, with a gradient, take that block's place.
    """

    blocks: dict[str, dict[str, list[Tensor]]]
    part: int

    def known_teachers(self) -> dict[str, Tensor]:
        """Returns the teachers' logits of this part."""
        return {m: blocks[self.part] for m, blocks in self.blocks["teacher_BK"].items()}

    def around(self, own: Outputs) -> Outputs:
        """Returns the part's outputs with those of the whole batch in place of the part's own.

        Every part sees such a term's value for the whole batch, but the gradient of its own rows alone. Gradients are
        averaged over parts, so that of its rows is multiplied by the number of parts. Parameters of a term get the
        gradient of the whole batch in every part, and are right as they are.
        """
        changes: dict[str, Any] = {
            name: {m: self._joined(blocks, getattr(own, name)[m]) for m, blocks in of.items()}
            for name, of in self.blocks.items()
        }
        return replace(own, **changes)

    def _joined(self, blocks: list[Tensor], rows: Tensor) -> Tensor:
        if rows.requires_grad:
            rows = rows.view_as(rows)  # the hook must not touch what other terms give to the same rows
            rows.register_hook(lambda gradient: gradient * len(blocks))
        return torch.cat([*blocks[: self.part], rows, *blocks[self.part + 1 :]])


class SharedObjective(Learner):
    """The objective of a batch that parts and processes share.

    Args:
        objective: of the run; its networks are changed by every step.
        clip_gradient: norm limit of each tensor of students and their heads.
        group: the processes that share each batch.
    """

    def __init__(self, objective: Objective, clip_gradient: float, group: TrainingGroup = ALONE) -> None:
        super().__init__(group, clip_gradient)
        self.objective = objective
        self.columns = objective.columns

    @property
    def networks(self) -> Networks:
        """Students and teachers."""
        return self.objective.networks

    def forward(self, inputs: Inputs, whole: Whole | None, parts: int) -> ObjectiveLosses:
        """Computes the losses of a part of the batch; `whole` is what `survey` gave for the part."""
        outputs = objective_outputs(self.objective, inputs, whole.known_teachers() if whole else None)
        if whole is None and self.group.size > 1 and self.objective.compares_clips:
            whole = gathered([outputs], self.group)[0]
        total, values = self.objective(outputs, whole.around(outputs) if whole else None)
        return ObjectiveLosses(
            total / parts,
            detached(values.losses),
            detached(values.diagnostics),
            detached(outputs.features_BD),
            outputs.teacher_BK,
        )

    @torch.no_grad()
    def survey(self, parts: Sequence[Inputs]) -> list[Whole] | list[None]:
        """Runs a first pass for all clips' outputs, where a term compares clips and a part holds but some of them."""
        if len(parts) == 1 or not self.objective.compares_clips:
            return [None] * len(parts)
        return gathered([objective_outputs(self.objective, part, reconstruct=False) for part in parts], self.group)

    @torch.no_grad()
    def finish(self, parts: list[ObjectiveLosses]) -> dict[str, Tensor]:
        """Lets terms update what they keep; returns every loss and diagnostic of the whole batch."""
        logged = over_parts([part.losses for part in parts], self.group)
        logged |= self._spreads(parts)
        logged |= over_parts([part.diagnostics for part in parts], self.group)
        return logged | self.objective.finish(joined_rows([part.teacher_BK for part in parts]))

    def clipped_parameters(self) -> Iterator[nn.Parameter]:
        """Yields those of student encoders and heads."""
        return self.networks.clipped_parameters()

    def held_parameters(self, inputs: Inputs) -> list[nn.Parameter]:
        """Returns the heads' last layer, where the step holds it."""
        return [head.directions for head in self.networks.student_heads.values()] if inputs.hold_last_layer else []

    def follow(self, inputs: Inputs, updated: Tensor) -> None:
        """Moves the teachers."""
        self.networks.update_teachers(inputs.momentum, updated)

    @torch.no_grad()
    def faulty_clips(self, inputs: Inputs) -> Tensor:
        """Finds clips that hold or give values that are not finite: (B,) booleans."""
        outputs = objective_outputs(self.objective, inputs)
        computed = (outputs.predicted_BMP, outputs.features_BD, outputs.student_RK, outputs.teacher_BK)
        return faulty_rows(
            [view for of in inputs.views.values() for view in of], [x for of in computed for x in of.values()]
        )

    def _spreads(self, parts: list[ObjectiveLosses]) -> dict[str, Tensor]:
        features = joined_rows([part.features_BD for part in parts])
        return {f"feature_spread_{m}": feature_spread(torch.cat(self.group.rows(of))) for m, of in features.items()}


def objective_outputs(
    objective: Objective, inputs: Inputs, teacher_BK: dict[str, Tensor] | None = None, reconstruct: bool = True
) -> Outputs:
    """Runs the networks of an objective on its inputs; arguments as of `run_networks`."""
    outputs = run_networks(
        objective.networks, objective.settings, inputs.views, inputs.ranks, reconstruct, teacher_BK=teacher_BK
    )
    return replace(outputs, temperatures=inputs.temperatures, labels_B=inputs.labels_B)


def gathered(outputs: list[Outputs], group: TrainingGroup) -> list[Whole]:
    """Makes, from the outputs of this process's parts, the whole batch as each of them sees it."""
    blocks = {
        name: {
            m: [block for one in outputs for block in group.rows(getattr(one, name)[m])]
            for m in getattr(outputs[0], name)
        }
        for name in SHARED_OUTPUTS
    }
    # Blocks come part by part, and within each rank by rank.
    return [Whole(blocks, number * group.size + group.rank) for number in range(len(outputs))]


def joined_rows(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenates the rows of parts, by modality."""
    return {m: torch.cat([part[m] for part in parts]) for m in parts[0]}


def detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns named values without their graphs."""
    return {name: value.detach() for name, value in values.items()}
