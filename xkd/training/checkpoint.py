"""Resuming: one checkpoint per run, one process per checkpoint.

Checkpoints are no outputs of the engines (those are deleted before a rerun); a digest of settings,
data and code decides whether an existing one may be continued.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from xkd.errors import UserError
from xkd.files import replacing

NAME = "last.pt"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the folder's lock: an engine that was killed may have left its trainer running.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is training this run; wait for it or stop it first") from None
        yield


def save(folder: Path, digest: str, state: dict) -> None:
    """Writes the checkpoint whole or not at all."""
    with replacing(folder / NAME) as path:
        torch.save({"digest": digest, **state}, path)


def load(folder: Path, digest: str) -> dict | None:
    """The checkpoint, or None where there is none or it belongs to other settings, data or code."""
    path = folder / NAME
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True, map_location="cpu")
    return state if state["digest"] == digest else None


def remove(folder: Path) -> None:
    """Deletes the checkpoint of a finished run."""
    (folder / NAME).unlink(missing_ok=True)
