"""A table that is written part by part into a folder beside its place, where a later call finds what was done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xkd.files import locked, read_json, replacing, sync, write_json

PLAN, LOCK, STATE = "plan.json", "lock", b"xkd"


class Parts:
    """The parts of an unfinished table, which this process alone may write.

    Attributes:
        plan: what the table is made from and how, as it was begun with; empty: it has not begun.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.plan: dict[str, Any] = read_json(folder / PLAN) if (folder / PLAN).is_file() else {}

    def begin(self, plan: dict[str, Any]) -> None:
        """Begins a new table. The plan is any JSON object."""
        for path in [self._folder / PLAN, *self._paths()]:
            path.unlink(missing_ok=True)
        write_json(self._folder / PLAN, plan)
        self.plan = read_json(self._folder / PLAN)

    def add(self, table: pa.Table, state: dict[str, Any]) -> None:
        """Writes the next part, whole or not at all.

        Args:
            table: its rows.
            state: what continues from here, any JSON object.
        """
        with replacing(self._folder / f"{len(self._paths()):08d}.parquet") as path:
            pq.write_table(table.replace_schema_metadata({STATE: json.dumps(state)}), path)
            sync(path)

    def state(self) -> dict[str, Any]:
        """Returns the state after the last part; empty before the first one."""
        paths = self._paths()
        state: dict[str, Any] = json.loads(pq.read_schema(paths[-1]).metadata[STATE]) if paths else {}
        return state

    def tables(self) -> Iterator[pa.Table]:
        """Reads the parts, in order."""
        for path in self._paths():
            yield pq.read_table(path).replace_schema_metadata(None)

    def remove(self) -> None:
        """Removes all of it; what a file system does not let go of, such as a file that is open, may stay."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("*.parquet") if not path.name.startswith("."))


def folder_of(output: Path) -> Path:
    """Returns the folder of the parts of a table."""
    return output.with_name(f".{output.name}.parts")


@contextmanager
def unfinished(output: Path) -> Iterator[Parts]:
    """Yields the parts of a table, which may have been begun by an earlier call.

    Raises:
        UserError: another process writes them.
    """
    folder = folder_of(output)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK, busy=f"{output}: another process is writing it"):
        yield Parts(folder)
