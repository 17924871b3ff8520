"""AdamW groups and per-tensor gradient clipping (method section 3, "Update")."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import unwrap

import torch
from torch import Tensor, nn


class _AdamW(torch.optim.AdamW):
    """PyTorch's AdamW without the wrappers that keep its compiler out: they load the compiler, which takes a second."""

    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
    add_param_group = unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = unwrap(torch.optim.AdamW.zero_grad)
    state_dict = unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = unwrap(torch.optim.AdamW.load_state_dict)


def make_optimiser(
    model: nn.Module, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """Returns AdamW with weight decay on tensors of two or more dimensions that are not called bias."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim >= 2 and not name.endswith("bias")]
    others = [p for name, p in named if p.ndim < 2 or name.endswith("bias")]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return _AdamW(groups, lr=learning_rate, betas=betas, fused=True)


@torch.no_grad()
def clip_each(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scales every tensor's gradient on its own: g *= min(1, limit / (|g| + 1e-6)).

    Returns:
        The norm of all gradients together before clipping (a scalar).
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    scales = (limit / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(scales.unbind()))
    norm: Tensor = norms.norm()
    return norm
