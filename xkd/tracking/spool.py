"""What MLflow did not take, on disk until it does: one file of JSON lines per run, in `mlflow-unsent/`.

Each line is an event, as `xkd.tracking.sender` carries them out. A file is locked by whoever writes or sends it.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

FOLDER = Path("mlflow-unsent")


def path_of(key: str) -> Path:
    """The file of a run."""
    return FOLDER / f"{quote(key, safe='')}.jsonl"


def waiting() -> list[Path]:
    """All files, those that were begun first before the others: results go onto runs that were begun before them."""
    return sorted(FOLDER.glob("*.jsonl"), key=_begun)


class Spool:
    """An open, locked file of events.

    Args:
        path: the file; made, with its folder, if it does not exist.
        wait: whether to wait for another process that has it.

    Raises:
        BlockingIOError: another process has it, and `wait` is false.
    """

    def __init__(self, path: Path, wait: bool = True) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self._file = open(path, "a+b")  # noqa: SIM115 (the lock is held until `close`)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError:
                self._file.close()
                raise
            # Whoever had it may have sent and removed it meanwhile.
            if path.exists() and os.path.samestat(os.fstat(self._file.fileno()), path.stat()):
                break
            self._file.close()
        self._cut_torn_line()

    def append(self, event: dict[str, Any]) -> None:
        """Adds an event; it is on the disk when this returns."""
        self._file.write(json.dumps(event).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def events(self) -> list[dict[str, Any]]:
        """All events, in order."""
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def remove(self) -> None:
        """Deletes the file: all is sent."""
        self.path.unlink()
        self.close()

    def close(self) -> None:
        """Lets others have it."""
        self._file.close()

    def _cut_torn_line(self) -> None:
        """Of a process that was killed, or a disk that was full, while it wrote."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)


def _begun(path: Path) -> tuple[int, str]:
    try:
        with open(path, "rb") as file:
            line = file.readline()
    except FileNotFoundError:  # sent meanwhile
        line = b""
    return (json.loads(line)["time"] if line.endswith(b"\n") else 0, path.name)
