"""What one batch changes (method section 3, "Update")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
    norm = clip(networks, limit, hold_last_layer)
    apply(networks, optimiser, momentum)
    return norm


def clip(networks: Networks, limit: float, hold_last_layer: bool) -> Tensor:
    """The part of `update` that changes gradients; returns as it does."""
    if hold_last_layer:
        for head in networks.student_heads.values():
            head.directions.grad = None
    return clip_each(networks.clipped_parameters(), limit)


def apply(networks: Networks, optimiser: torch.optim.Optimizer, momentum: dict[str, float]) -> None:
    """The part of `update` that changes weights."""
    optimiser.step()
    networks.update_teachers(momentum)


def finite_gradients(norm: Tensor, others: list[nn.Parameter]) -> Tensor:
    """Whether no gradient holds an infinity or a NaN: a scalar, so that a GPU is waited for once a step.

    Args:
        norm: what `clip` returned.
        others: the parameters that it left out.
    """
    gradients = [p.grad for p in others if p.grad is not None]
    return torch.stack([norm, *torch._foreach_norm(gradients)] if gradients else [norm]).isfinite().all()
