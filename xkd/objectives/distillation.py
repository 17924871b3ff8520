"""Cross-modal knowledge distillation, L_kd (paper section 3.3; method section 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from xkd import registry
from xkd.logged import CollapseSign, LoggedColumn, Threshold, each
from xkd.modalities import MODALITIES, OTHER
from xkd.models.networks import PerModality
from xkd.objectives.term import Outputs, RunSizes, Term, Values

UNIFORM = CollapseSign(
    "teacher entropy / log K, {}",
    "{} teacher",
    "log K",
    (
        Threshold(
            *("collapsed", 0.99, "targets uniform"),
            "a teacher’s targets have an entropy of at least {level:g} log K (uniform targets say nothing)",
        ),
        Threshold("suspect", 0.9, "targets almost uniform", "entropy at least {level:g} log K"),
        Threshold("suspect", 0.05, "targets one-hot", "entropy at most {level:g} log K (one-hot)", below=True),
    ),
)
# Logits have zero mean and unit variance per clip, hence length √K. The centre, their running mean, is as long as that
# only if all clips have the same logits.
ALIKE = CollapseSign(
    "centre norm / √K, {}",
    "{} teacher",
    "√K",
    (
        Threshold(
            *("collapsed", 0.995, "outputs the same for all clips"),
            "the centre of its outputs has a norm of at least {level:g} √K (each output has norm √K, so all are then "
            "alike)",
        ),
        Threshold("suspect", 0.97, "outputs almost the same for all clips", "centre norm at least {level:g} √K"),
        # Chosen between xkd and ae_kd of the embedded benchmark, ten seeds each (docs/long-runs.md).
        Threshold(
            *("collapsing", 0.97, "outputs almost the same for all clips this early"),
            "centre norm at least {level:g} √K within the first {within:.0%} of the steps",
            within=0.2,
        ),
    ),
)


class CrossModalDistillation(nn.Module):
    """One direction of distillation: a student's cross-entropy against the other modality's centred, sharpened teacher.

    Args:
        out: number of logits (columns of the projection head).
        student_temperature: softmax temperature of the student (paper: 0.1).
        centre_momentum: c <- momentum c + (1 - momentum) mean(teacher logits).
    """

    centre: Tensor

    def __init__(self, out: int, student_temperature: float, centre_momentum: float) -> None:
        super().__init__()
        self.student_temperature = student_temperature
        self.centre_momentum = centre_momentum
        self.register_buffer("centre", torch.zeros(1, out))

    def targets(self, teacher_BK: Tensor, teacher_temperature: float) -> Tensor:
        """Returns softmax((teacher - centre) / temperature), without gradient: (B, K)."""
        return ((teacher_BK.detach() - self.centre) / teacher_temperature).softmax(-1)

    def forward(self, student_RK: Tensor, targets_BK: Tensor) -> Tensor:
        """Returns the mean cross-entropy over all pairs of a student view and the teacher view of the same clip.

        Args:
            student_RK: student logits, one block of B rows per view: (views * B, K).
            targets_BK: `targets(...)` of the other modality's teacher.
        """
        log_p_VBK = (student_RK / self.student_temperature).log_softmax(-1).view(-1, *targets_BK.shape)
        return -(targets_BK * log_p_VBK).sum(-1).mean()

    @torch.no_grad()
    def update_centre(self, teacher_BK: Tensor) -> None:
        """Moves the centre towards the mean of the whole batch's teacher logits, of all ranks; call after the loss."""
        mean_1K = teacher_BK.mean(0, keepdim=True).to(self.centre.dtype)
        if distributed.is_initialized():  # every rank holds as many clips
            distributed.all_reduce(mean_1K)
            mean_1K /= distributed.get_world_size()
        self.centre.lerp_(mean_1K, 1 - self.centre_momentum)


def entropy(targets_BK: Tensor) -> Tensor:
    """Returns the mean entropy of the targets in nats; log K means that the teacher says nothing (collapse)."""
    return -torch.xlogy(targets_BK, targets_BK).sum(-1).mean()


@registry.terms.register("distillation")
class Distillation(Term):
    """L_kd: cross-entropy of each student against the other modality's teacher."""

    columns = (
        *each(MODALITIES, LoggedColumn("distillation_{}", "distillation, {} student")),
        *each(
            MODALITIES,
            LoggedColumn("teacher_entropy_{}", "teacher entropy, {}", "diagnostic", limit="log K", sign=UNIFORM),
        ),
        *each(MODALITIES, LoggedColumn("centre_norm_{}", "centre norm, {}", "diagnostic", limit="√K", sign=ALIKE)),
    )
    needs_teachers = True

    def __init__(self, settings: Any, sizes: RunSizes) -> None:
        super().__init__(settings, sizes)
        # Named after the student that learns; the centre is that of the other modality's teacher.
        self.directions = PerModality(
            {
                m: CrossModalDistillation(sizes.logits, settings.student_temperature, settings.centre_momentum)
                for m in sizes.modalities
            }
        )

    def forward(self, outputs: Outputs) -> Values:
        found = Values({})
        for student, direction in self.directions.items():
            teacher = OTHER[student]
            targets_BK = direction.targets(outputs.teacher_BK[teacher], outputs.temperatures[teacher])
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
