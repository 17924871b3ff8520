"""Explains failures of torch, torchvision and torchaudio, three packages that must be built for each other."""

from __future__ import annotations

import importlib
from importlib import metadata

PACKAGES = ("torch", "torchvision", "torchaudio")
MEND = "mend it with: python -m pip install --force-reinstall -c constraints.txt " + " ".join(PACKAGES)


def explain() -> str | None:
    """Returns one line on what is wrong and how to mend it, or None if all three can be imported.

    It is called after a failure rather than before every stage, since importing all three takes seconds.
    """
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        # A mismatch shows as ImportError, OSError (missing symbol), RuntimeError (missing operator) or AttributeError.
        except Exception as error:  # noqa: BLE001
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return f"{name} cannot be imported with {_versions()}: {reason}; {MEND}"
    return None


def _versions() -> str:
    return ", ".join(f"{name} {_version(name)}" for name in PACKAGES)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"
