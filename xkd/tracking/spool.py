"""Keeps events that MLflow did not accept: one file of JSON lines per run, in `mlflow-unsent/`.

Each line is an event as `xkd.tracking.sender` describes it. Whoever writes or sends a file holds its lock.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from xkd.files import acquired

UNSENT = Path("mlflow-unsent")


def path_of(key: str) -> Path:
    """Returns the path of a run's file."""
    return UNSENT / f"{quote(key, safe='')}.jsonl"


def waiting() -> list[Path]:
    """Returns all files, oldest first: results are logged onto runs that began before them."""
    return sorted(
        UNSENT.glob("*.jsonl"), key=lambda path: ([event["time"] for event in events_in(path)[:1]], path.name)
    )


class Spool:
    """An open, locked file of events.

    Args:
        path: the file; created, with its folder, if it does not exist.
        wait: whether to wait until another process releases it.

    Raises:
        filelock.Timeout: another process holds it, and `wait` is false.
    """

    def __init__(self, path: Path, wait: bool = True) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = acquired(path, wait)

    def append(self, event: dict[str, Any]) -> None:
        """Adds an event and waits until it is on disk."""
        with open(self.path, "ab") as file:  # the first line break ends a line that a kill has cut off
            file.write(f"\n{json.dumps(event)}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Deletes the file: everything has been sent."""
        self.path.unlink()
        self.close()

    def close(self) -> None:
        """Releases the lock."""
        self._lock.release()


def events_in(path: Path) -> list[dict[str, Any]]:
    """Returns all events of a file, in order."""
    events = []
    with suppress(FileNotFoundError):  # sent in the meantime
        for line in path.read_bytes().splitlines():
            with suppress(ValueError):  # an empty line, or one that a kill has cut off
                events.append(json.loads(line))
    return events
