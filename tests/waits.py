"""Finds where a computation would wait for a GPU, on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

VALUES = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::bincount"}


class Waits(TorchDispatchMode):
    """Collects the operations inside that read values or shapes from the device, or copy from the host.

    Values: `.item()`, `if tensor`, `nonzero`, indexing by booleans. Copies: a tensor made of Python numbers, or one
    that another device had.

    Attributes:
        found: names of such operations.
        copied: how many tensors came from another device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.copied = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, result = func._schema.name, func(*args, **(kwargs or {}))
        if name in VALUES | {"aten::lift_fresh"} or (name in ("aten::index", "aten::index_put_") and _masks(args[1])):
            self.found.append(name)
        if name == "aten::_to_copy" and result.device != args[0].device:
            self.copied += 1
            if not (kwargs or {}).get("non_blocking"):
                self.found.append(name)
        return result


def _masks(indices: list[Tensor | None]) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
