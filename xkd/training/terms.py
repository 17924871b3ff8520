"""The terms of the objective, each from the networks' outputs to its losses (paper section 3; method section 3).

A term owns what it keeps between steps, the names under which its losses and diagnostics are logged, and whether it
compares clips with each other. Its formula is in `xkd.objectives`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from xkd.modalities import MODALITIES, OTHER
from xkd.models.networks import Networks, PerModality
from xkd.objectives.alignment import DISCREPANCIES
from xkd.objectives.distillation import CrossModalDistillation, entropy
from xkd.objectives.reconstruction import reconstruction_loss
from xkd.training.forward import Outputs

if TYPE_CHECKING:
    from xkd.settings import Objective as Settings


@dataclass
class Values:
    """What a term gives for a batch: the losses, whose average is minimised, and scalars that are only logged."""

    losses: dict[str, Tensor]
    diagnostics: dict[str, Tensor] = field(default_factory=dict)


class Term(nn.Module):
    """A term of the objective.

    Attributes:
        losses, diagnostics: names of the columns that it logs.
        compares_clips: whether its value is that of the whole batch, and no average over clips.
    """

    losses: ClassVar[tuple[str, ...]]
    diagnostics: ClassVar[tuple[str, ...]] = ()
    compares_clips: ClassVar[bool] = False

    def forward(self, outputs: Outputs, temperatures: dict[str, float]) -> Values:
        """Computes the losses of a batch, in float32.

        Args:
            outputs: of the networks; of the whole batch if the term compares clips.
            temperatures: of each modality's teacher.
        """
        raise NotImplementedError

    def finish(self, teacher_BK: dict[str, Tensor]) -> dict[str, Tensor]:
        """Updates what the term keeps, once all parts of the batch have used it; returns more diagnostics.

        Args:
            teacher_BK: teachers' logits of this process's clips.
        """
        return {}


class Reconstruction(Term):
    """L_ae: mean squared error on the hidden patches, per modality."""

    losses = ("reconstruction_video", "reconstruction_audio")

    def forward(self, outputs: Outputs, temperatures: dict[str, float]) -> Values:
        return Values(
            {
                f"reconstruction_{m}": reconstruction_loss(predicted, outputs.patches_BNP[m], outputs.hidden_BM[m])
                for m, predicted in outputs.predicted_BNP.items()
            }
        )


class Distillation(Term):
    """L_kd: cross-entropy of each student against the other modality's teacher."""

    losses = ("distillation_video", "distillation_audio")
    diagnostics = ("teacher_entropy_video", "teacher_entropy_audio", "centre_norm_video", "centre_norm_audio")

    def __init__(self, modalities: tuple[str, ...], settings: Settings, logits: int) -> None:
        super().__init__()
        # Named after the student that learns; the centre is that of the other modality's teacher.
        self.directions = PerModality(
            {
                m: CrossModalDistillation(logits, settings.student_temperature, settings.centre_momentum)
                for m in modalities
            }
        )

    def forward(self, outputs: Outputs, temperatures: dict[str, float]) -> Values:
        found = Values({})
        for student, direction in self.directions.items():
            teacher = OTHER[student]
            targets_BK = direction.targets(outputs.teacher_BK[teacher], temperatures[teacher])
            found.losses[f"distillation_{student}"] = direction(outputs.student_RK[student], targets_BK)
            found.diagnostics[f"teacher_entropy_{teacher}"] = entropy(targets_BK)
        return found

    @torch.no_grad()
    def finish(self, teacher_BK: dict[str, Tensor]) -> dict[str, Tensor]:
        """Moves the centres."""
        norms = {}
        for student, direction in self.directions.items():
            teacher = OTHER[student]
            direction.update_centre(teacher_BK[teacher])
            norms[f"centre_norm_{teacher}"] = direction.centre.norm()
        return norms


class Alignment(Term):
    """L_da: discrepancy between the modalities' outputs, of students and of teachers."""

    losses = ("alignment_students", "alignment_teachers")
    compares_clips = True

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.discrepancy = DISCREPANCIES[settings.discrepancy]

    def forward(self, outputs: Outputs, temperatures: dict[str, float]) -> Values:
        both = {"students": outputs.student_RK, "teachers": outputs.teacher_BK}
        return Values(
            {f"alignment_{name}": self.discrepancy(*(of[m] for m in MODALITIES)) for name, of in both.items()}
        )


TERMS: dict[str, type[Term]] = {"reconstruction": Reconstruction, "distillation": Distillation, "alignment": Alignment}


def make_terms(networks: Networks, settings: Settings, logits: int) -> dict[str, Term]:
    """Makes the terms that a run computes, by the name of their weight in the settings' group `objective`."""
    terms: dict[str, Term] = {}
    if len(networks.decoders):
        terms["reconstruction"] = Reconstruction()
    if settings.distillation:
        terms["distillation"] = Distillation(tuple(networks.teachers), settings, logits)
    if settings.alignment:
        terms["alignment"] = Alignment(settings)
    return terms
