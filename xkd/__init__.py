"""XKD: self-supervised audio-visual pretraining with cross-modal distillation and domain alignment."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xkd.encoders.pair import PretrainedPair, load_pair
    from xkd.encoders.pretrained import PretrainedEncoder, load_encoder
    from xkd.encoders.transformer import XKDFeatures

__version__ = "0.1.0"
__all__ = ["PretrainedEncoder", "PretrainedPair", "XKDFeatures", "load_encoder", "load_pair"]
_MODULES = {
    "PretrainedEncoder": "pretrained",
    "PretrainedPair": "pair",
    "XKDFeatures": "transformer",
    "load_encoder": "pretrained",
    "load_pair": "pair",
}


def __getattr__(name: str) -> object:
    # Imported when asked for, and by name: `--help` does not wait for torch, and no stage's code depends on it.
    if name in _MODULES:
        return getattr(importlib.import_module(f"xkd.encoders.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
