"""Weights in half precision, of networks that are not trained."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor, nn


class HalfWeights:
    """A context in which the linear layers of teachers compute with their weights in half precision.

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
        self._half = [weight.to(dtype) for weight in self._whole]

    @torch.no_grad()
    def __enter__(self) -> None:
        if self._half:
            torch._foreach_copy_(self._half, self._whole)
        # What an object has itself goes before parameters, which stay what they are to all who list or save them.
        for (layer, name), half in zip(self._places, self._half, strict=True):
            layer.__dict__[name] = half

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for layer, name in self._places:
            del layer.__dict__[name]
