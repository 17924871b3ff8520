"""The projection head of students and teachers (method: networks, "Projection head")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd.models.vit import init_linear


def head_input(kind: str, cls_BD: Tensor, mean_BD: Tensor) -> Tensor:
    """Returns what heads read of a view, (B, D).

    Args:
        kind: "patches" (paper), "cls", or "both" for the mean of these two.
        cls_BD, mean_BD: the CLS token and the mean of the patch tokens, refined ones for a teacher.
    """
    if kind == "both":
        return (cls_BD + mean_BD) / 2
    return cls_BD if kind == "cls" else mean_BD


class ProjectionHead(nn.Module):
    """Three linear layers, L2 normalisation, and a weight-normalised last layer of gain 1.

    One LayerNorm serves both hidden layers: the released head registers the same module twice,
    which the reference gradients confirm (they list its tensors once).

    Args:
        width: size of the encoder's tokens (D).
        hidden, bottleneck, out: sizes of the layers (released: 2048, 256, 8192).
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, out: int) -> None:
        super().__init__()
        self.layer1 = nn.Linear(width, hidden)
        self.layer2 = nn.Linear(hidden, hidden)
        self.layer3 = nn.Linear(hidden, bottleneck)
        self.norm = nn.LayerNorm(hidden)
        self.directions = nn.Parameter(torch.empty(out, bottleneck))
        self.apply(init_linear)
        nn.init.kaiming_uniform_(self.directions, a=5**0.5)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Maps tokens of `head_input` (B, D) to logits (B, out) of zero mean and unit variance per row."""
        x = F.gelu(self.norm(self.layer1(x_BD)))
        x = F.gelu(self.norm(self.layer2(x)))
        x = F.normalize(self.layer3(x), dim=-1)
        # Unit rows: a gain fixed at 1 makes weight normalisation a plain normalisation.
        x = F.linear(x, F.normalize(self.directions, dim=-1))
        return F.layer_norm(x, x.shape[-1:])
