"""Compiles whole encoders and decoders with `torch.compile`, for the time of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from xkd.models.encoder import Encoder, Stack

GRAPHS = 64  # of one function: for each modality's students and teachers, global and local views


class Compiled:
    """While entered, encoders and decoders run compiled. Other uses of them have other shapes, and stay as they are.

    Args:
        module: its `Stack`s are meant.
        on: whether anything is compiled; each function is at its first call with new shapes, which takes minutes.
    """

    def __init__(self, module: nn.Module, on: bool) -> None:
        self._calls: list[tuple[Stack, str, Callable[..., Any]]] = []
        if on:
            torch._dynamo.config.recompile_limit = GRAPHS
            self._calls = [call for stack in module.modules() if isinstance(stack, Stack) for call in _compiled(stack)]

    def __enter__(self) -> None:
        for stack, name, call in self._calls:
            setattr(stack, name, call)

    def __exit__(self, *_: object) -> None:
        for stack, name, _call in self._calls:
            delattr(stack, name)


def _compiled(stack: Stack) -> list[tuple[Stack, str, Callable[..., Any]]]:
    names = ("encode_patches", "encode_views") if isinstance(stack, Encoder) else ("forward",)
    return [(stack, name, torch.compile(getattr(stack, name), dynamic=False)) for name in names]
