"""How processes and parts share a batch: what each of them gets, and how their results become the batch's.

Shapes: B clips, R rows (clips of all student views), K logits, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from xkd.training.distributed import Group
from xkd.training.forward import Outputs, Views


@dataclass(frozen=True)
class Inputs:
    """What an objective gets of a batch, or of a part of it.

    Attributes:
        views: per modality the global view, then the local views, B rows each.
        ranks: per modality a (B, N) order of the global view's patches; the lowest stay visible.
        temperatures: of each modality's teacher.
        labels_B: class numbers, for training with labels.
    """

    views: Views
    ranks: dict[str, Tensor] = field(default_factory=dict)
    temperatures: dict[str, float] = field(default_factory=dict)
    labels_B: Tensor | None = None

    def parts(self, count: int) -> list[Inputs]:
        """The same in `count` parts of equally many clips."""
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
        terms: every loss as a scalar; averaged over equal parts, each is that of the whole batch.
        diagnostics: the same for what is only logged.
    """

    total: Tensor
    terms: dict[str, Tensor]
    diagnostics: dict[str, Tensor]
    features_BD: dict[str, Tensor]
    teacher_BK: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Whole:
    """Head outputs of all parts of a batch, of all processes, for terms that compare clips with each other.

    Attributes:
        student_RK, teacher_BK: per modality one block of rows for each part, in an order that all processes share.
        part: the number of this part's block; its own student rows, with a gradient, take that block's place.
    """

    student_RK: dict[str, list[Tensor]]
    teacher_BK: dict[str, list[Tensor]]
    part: int

    def known_teachers(self) -> dict[str, Tensor]:
        """The teachers' logits of this part."""
        return {m: blocks[self.part] for m, blocks in self.teacher_BK.items()}

    def around(self, own: Outputs) -> Outputs:
        """The part's outputs with the head outputs of the whole batch."""
        students = {
            m: torch.cat([*blocks[: self.part], own.student_RK[m], *blocks[self.part + 1 :]])
            for m, blocks in self.student_RK.items()
        }
        return replace(own, student_RK=students, teacher_BK={m: torch.cat(of) for m, of in self.teacher_BK.items()})


def gathered(outputs: list[Outputs], group: Group) -> list[Whole]:
    """Makes, from the outputs of this process's parts, the whole batch as each of them sees it."""
    students, teachers = (
        {m: [block for one in of for block in group.rows(one[m])] for m in of[0]}
        for of in ([one.student_RK for one in outputs], [one.teacher_BK for one in outputs])
    )
    # Blocks come part by part, and within each rank by rank.
    return [Whole(students, teachers, number * group.size + group.rank) for number in range(len(outputs))]


def over_parts(values: list[dict[str, Tensor]], group: Group) -> dict[str, Tensor]:
    """Averages named scalars over the parts of all processes."""
    if not values[0]:
        return {}
    means = group.mean(torch.stack([torch.stack(list(of.values())) for of in values]).mean(0))
    return dict(zip(values[0], means.unbind(), strict=True))


def spreads(parts: list[PartLosses], group: Group) -> dict[str, Tensor]:
    """`feature_spread_<modality>`: the features' standard deviation over all clips, averaged over dimensions.

    0 means that all clips look the same (collapse).
    """
    own = {m: torch.cat([part.features_BD[m] for part in parts]) for m in parts[0].features_BD}
    return {f"feature_spread_{m}": torch.cat(group.rows(of)).std(0).mean() for m, of in own.items()}


def faulty_clips(views: Views, outputs: list[Tensor]) -> Tensor:
    """Finds clips with a value that is not finite, in their views or in outputs of B rows, or B for each view.

    Returns:
        (B,) booleans.
    """
    tensors = [view for of in views.values() for view in of]
    clips = len(tensors[0])
    return torch.stack([~t.reshape(-1, clips, t[0].numel()).isfinite().all(2).all(0) for t in tensors + outputs]).any(0)
