"""What one batch changes (method section 3, "Update")."""

from __future__ import annotations

import torch
from torch import Tensor

from xkd.models.networks import Networks
from xkd.training.optimiser import clip_each


def update(
    networks: Networks,
    optimiser: torch.optim.Optimizer,
    loss: Tensor,
    limit: float,
    momentum: dict[str, float],
    hold_last_layer: bool = False,
) -> Tensor:
    """Gradients, per-tensor clipping of encoders and heads, AdamW, then the teachers follow.

    Args:
        loss: of the whole batch, a scalar.
        limit: of each student tensor's gradient norm.
        momentum: EMA momentum of each modality's teacher.
        hold_last_layer: leaves the heads' last layer as it is.

    Returns:
        The norm of all clipped tensors' gradients together, before clipping.
    """
    optimiser.zero_grad()
    loss.backward()
    if hold_last_layer:
        for head in networks.student_heads.values():
            head.directions.grad = None
    norm = clip_each(networks.clipped_parameters(), limit)
    optimiser.step()
    networks.update_teachers(momentum)
    return norm
