"""Shares a batch between processes and parts, and combines their results into those of the batch.

Shapes: B clips, R rows (clips of all student views), K logits, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from xkd.objectives.spread import feature_spread
from xkd.objectives.term import Outputs
from xkd.training.distributed import TrainingGroup
from xkd.training.forward import ViewTensors, run_networks
from xkd.training.objective import Objective

SHARED_OUTPUTS = ("features_BD", "student_RK", "teacher_BK")  # what terms that compare clips get of the whole batch


@dataclass(frozen=True)
class Inputs:
    """The inputs of the objective: a batch, or a part of it.

    Attributes:
        views: per modality the global view, then the local views, B rows each.
        ranks: per modality a (B, N) order of the global view's patches; the lowest stay visible; all do if empty.
        temperatures: of each modality's teacher.
        labels_B: class numbers, for training with labels; (B, classes) floats where clips have several.
    """

    views: ViewTensors
    ranks: dict[str, Tensor] = field(default_factory=dict)
    temperatures: dict[str, float] = field(default_factory=dict)
    labels_B: Tensor | None = None

    def parts(self, count: int) -> list[Inputs]:
        """Returns the same in `count` parts of equally many clips."""
        views = {m: [view.chunk(count) for view in of] for m, of in self.views.items()}
        ranks = {m: of.chunk(count) for m, of in self.ranks.items()}
        labels = [None] * count if self.labels_B is None else self.labels_B.chunk(count)
        return [
            Inputs(
                {m: [pieces[i] for pieces in of] for m, of in views.items()},
                {m: pieces[i] for m, pieces in ranks.items()},
                self.temperatures,
                labels[i],
            )
            for i in range(count)
        ]


@dataclass
class PartLosses:
    """Losses of a part of the batch: `total` gives its share of the gradient; the rest is detached.

    Attributes:
        losses: every loss as a scalar; averaged over equal parts, each is that of the whole batch.
        diagnostics: the same for what is only logged.
    """

    total: Tensor
    losses: dict[str, Tensor]
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


class SharedObjective(nn.Module):
    """The objective of a batch that parts and processes share; a module, since DistributedDataParallel wraps one.

    Args:
        objective: of the run.
        group: the processes that share each batch.
    """

    def __init__(self, objective: Objective, group: TrainingGroup) -> None:
        super().__init__()
        self.objective, self.group = objective, group

    def forward(self, inputs: Inputs, whole: Whole | None, parts: int) -> PartLosses:
        """Computes the losses of a part of the batch; changes nothing.

        Args:
            inputs: rows of the part only.
            whole: what `survey` gave for the part.
            parts: of this process; the gradients of its parts add up.
        """
        outputs = objective_outputs(self.objective, inputs, whole.known_teachers() if whole else None)
        if whole is None and self.group.size > 1 and self.objective.compares_clips:
            whole = gathered([outputs], self.group)[0]
        total, values = self.objective(outputs, whole.around(outputs) if whole else None)
        return PartLosses(
            total / parts,
            detached(values.losses),
            detached(values.diagnostics),
            detached(outputs.features_BD),
            outputs.teacher_BK,
        )

    @torch.no_grad()
    def survey(self, parts: list[Inputs]) -> list[Whole] | list[None]:
        """Runs a first pass for all clips' outputs, where a term compares clips and a part holds but some of them."""
        if len(parts) == 1 or not self.objective.compares_clips:
            return [None] * len(parts)
        return gathered([objective_outputs(self.objective, part, reconstruct=False) for part in parts], self.group)

    @torch.no_grad()
    def finish(self, parts: list[PartLosses]) -> dict[str, Tensor]:
        """Lets terms update what they keep; returns every loss and diagnostic of the whole batch."""
        logged = over_parts([part.losses for part in parts], self.group)
        logged |= self._spreads(parts)
        logged |= over_parts([part.diagnostics for part in parts], self.group)
        return logged | self.objective.finish(joined_rows([part.teacher_BK for part in parts]))

    def _spreads(self, parts: list[PartLosses]) -> dict[str, Tensor]:
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


def over_parts(values: list[dict[str, Tensor]], group: TrainingGroup) -> dict[str, Tensor]:
    """Averages named scalars over the parts of all processes."""
    if not values[0]:
        return {}
    means = group.mean(torch.stack([torch.stack(list(of.values())) for of in values]).mean(0))
    return dict(zip(values[0], means.unbind(), strict=True))


def joined_rows(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenates the rows of parts, by modality."""
    return {m: torch.cat([part[m] for part in parts]) for m in parts[0]}


def detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns named values without their graphs."""
    return {name: value.detach() for name, value in values.items()}


@torch.no_grad()
def faulty_clips(objective: Objective, inputs: Inputs) -> Tensor:
    """Finds clips that hold or give values that are not finite.

    Returns:
        (B,) booleans.
    """
    outputs = objective_outputs(objective, inputs)
    computed = (outputs.predicted_BNP, outputs.features_BD, outputs.student_RK, outputs.teacher_BK)
    tensors = [view for of in inputs.views.values() for view in of] + [x for of in computed for x in of.values()]
    clips = len(tensors[0])  # each has B rows, or B for each view
    return torch.stack([~t.reshape(-1, clips, t[0].numel()).isfinite().all(2).all(0) for t in tensors]).any(0)
