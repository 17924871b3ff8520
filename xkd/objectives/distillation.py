"""Cross-modal knowledge distillation, L_kd (paper section 3.3; method section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn


class CrossModalDistillation(nn.Module):
    """One direction: cross-entropy of a student against the other modality's centred, sharpened teacher.

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
        """softmax((teacher - centre) / temperature), without gradient: (B, K)."""
        return ((teacher_BK.detach() - self.centre) / teacher_temperature).softmax(-1)

    def forward(self, student_RK: Tensor, targets_BK: Tensor) -> Tensor:
        """Mean cross-entropy over all pairs of a student view and the teacher view of the same clip.

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
    """Mean entropy of the targets in nats; log K means the teacher says nothing (collapse)."""
    return -torch.xlogy(targets_BK, targets_BK).sum(-1).mean()
