"""Where networks compute unless somebody says otherwise."""

from __future__ import annotations

import torch


def device() -> torch.device:
    """Returns the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
