"""Weights in half precision, of networks that are not trained."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor, nn


class HalfWeights:
    """A context in which the linear layers of teachers hold their weights in half precision.

    Autocast would convert the weights anyway, but one by one; here all are converted at once, to the same values. They
    must not be changed inside.

    Args:
        networks: all linear layers in them that need no gradient are meant.
        dtype: the half precision; None leaves everything as it is.
    """

    def __init__(self, networks: nn.Module, dtype: torch.dtype | None) -> None:
        layers = [layer for layer in networks.modules() if isinstance(layer, nn.Linear)] if dtype else []
        named = [(layer, name, p) for layer in layers for name, p in layer.named_parameters() if not p.requires_grad]
        self._places = [(layer, name) for layer, name, _ in named]
        self._whole: list[Tensor] = [weight for _, _, weight in named]
        self._half: list[Tensor] = [nn.Parameter(weight.to(dtype), requires_grad=False) for weight in self._whole]

    @torch.no_grad()
    def __enter__(self) -> None:
        if self._half:
            torch._foreach_copy_(self._half, self._whole)
        self._put(self._half)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._put(self._whole)

    def _put(self, weights: list[Tensor]) -> None:
        for (layer, name), weight in zip(self._places, weights, strict=True):
            setattr(layer, name, weight)
