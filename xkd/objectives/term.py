"""A term of the objective: the interface of our own terms and of those of plugins (docs/plugins.md).

Shapes: B clips, N patches, M hidden ones, P values of a patch, R rows (clips of all student views), K logits, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from typing import Any, ClassVar

from torch import Tensor, nn

from xkd.logged import LoggedColumn


@dataclass(frozen=True)
class RunSizes:
    """The modalities and sizes that a term is built for.

    Attributes:
        modalities: those that the run trains, video first.
        width: of the encoders' tokens, D.
        logits: columns of the projection heads, K.
        classes: number of labels in the data.
    """

    modalities: tuple[str, ...]
    width: int
    logits: int
    classes: int = 0


@dataclass
class Outputs:
    """The networks' outputs for a batch, which terms are computed from; per modality, in float32.

    Attributes:
        patches_BNP, hidden_BM, predicted_BMP: the global view's patches, the indices of those that the encoder did not
            see, and the decoder's prediction of these; where there are decoders.
        features_BD: the student's mean patch token of the global view.
        student_RK: logits of the student's head, one block of B rows per view, the global view first.
        teacher_BK: logits of the teacher's head, without gradient.
        temperatures: of each modality's teacher.
        labels_B: class numbers of this part's clips; (B, classes) floats where clips have several labels.
    """

    patches_BNP: dict[str, Tensor] = field(default_factory=dict)
    hidden_BM: dict[str, Tensor] = field(default_factory=dict)
    predicted_BMP: dict[str, Tensor] = field(default_factory=dict)
    features_BD: dict[str, Tensor] = field(default_factory=dict)
    student_RK: dict[str, Tensor] = field(default_factory=dict)
    teacher_BK: dict[str, Tensor] = field(default_factory=dict)
    temperatures: dict[str, float] = field(default_factory=dict)
    labels_B: Tensor | None = None


@dataclass
class Values:
    """The results of a term: losses, whose average is minimised, and scalars that are only logged."""

    losses: dict[str, Tensor]
    diagnostics: dict[str, Tensor] = field(default_factory=dict)

    @property
    def loss(self) -> Tensor:
        """The average of the losses."""
        return reduce(Tensor.add, self.losses.values()) / len(self.losses)


class Term(nn.Module):
    """A term of the objective. Its parameters, if it has any, are trained; like those of decoders they are not clipped.

    Args:
        settings: of a plugin's term an instance of its `Settings`; of ours the group `objective` of the settings.
        sizes: what it is built for.

    Attributes:
        columns: what it logs; the names in its `Values` are among them.
        needs_teachers: whether it needs heads, local views and teachers.
        needs_decoders: whether it needs decoders of `objective.reconstruct`.
        masks: whether students see only a part of the global view's patches.
        compares_clips: whether its value is that of the whole batch, and no average over clips. Features and logits are
            then those of all clips of all processes.
    """

    columns: ClassVar[tuple[LoggedColumn, ...]]
    needs_teachers: ClassVar[bool] = False
    needs_decoders: ClassVar[bool] = False
    masks: ClassVar[bool] = True
    compares_clips: ClassVar[bool] = False

    def __init__(self, settings: Any, sizes: RunSizes) -> None:
        super().__init__()
        self.settings, self.sizes = settings, sizes

    def forward(self, outputs: Outputs) -> Values:
        """Computes the losses of a batch, in float32."""
        raise NotImplementedError

    def finish(self, teacher_BK: dict[str, Tensor]) -> dict[str, Tensor]:
        """Updates what the term keeps between steps, after all parts of the batch used it; returns more diagnostics.

        Args:
            teacher_BK: teachers' logits of this process's clips.
        """
        return {}
