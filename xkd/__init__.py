"""XKD: self-supervised audio-visual pretraining with cross-modal distillation and domain alignment."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xkd.encoders.pretrained import load_encoder

__version__ = "0.1.0"
__all__ = ["load_encoder"]


def __getattr__(name: str) -> object:
    # Imported when asked for, and by name: `--help` does not wait for torch, and no stage's code depends on it.
    if name == "load_encoder":
        return getattr(importlib.import_module("xkd.encoders.pretrained"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
