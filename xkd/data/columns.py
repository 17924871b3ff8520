"""Keeps a table as columns beside the CSV file it was read from: mapped into memory, shared by all processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
import pyarrow as pa

from xkd import sums
from xkd.files import replacing

KEY = b"xkd"


class Column(Sequence[str]):
    """Some rows of a column of text, without a copy: a worker shares the memory of the process that made it.

    Args:
        values: the whole column.
        rows: numbers of the rows.
    """

    def __init__(self, values: pd.api.extensions.ExtensionArray, rows: np.ndarray) -> None:
        self._values, self._rows = values, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return list(self._values[self._rows[index]])
        return str(self._values[self._rows[index]])

    def take(self, numbers: Sequence[int]) -> list[str]:
        """Returns the values of several rows, faster than one after the other."""
        values: list[str] = self._values.take(np.take(self._rows, numbers)).tolist()
        return values


def read(csv: Path, about: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """Returns the table kept beside a CSV file, and what was noted with it; None if there is none.

    Args:
        about: notes that it must have, such as the hash of the CSV file.
    """
    with suppress(OSError, ValueError, KeyError, pa.ArrowException):
        content = pa.memory_map(str(_beside(csv))).read_buffer()
        whole, total = np.frombuffer(content, np.uint8)[: -sums.WORD], content[-sums.WORD :].to_pybytes()
        if sums.total(whole) != int.from_bytes(total, "little"):
            return None
        table = pa.ipc.open_file(content[: -sums.WORD]).read_all()
        notes = json.loads(table.schema.metadata[KEY])
        if about.items() <= notes.items():
            return table.to_pandas(), notes
    return None


def keep(csv: Path, table: pd.DataFrame, notes: dict[str, Any]) -> None:
    """Writes a table beside its CSV file, whole or not at all; does nothing where the folder cannot be written to.

    The sum of its words stands at its end, see `sums`.
    """
    columns = pa.Table.from_pandas(table, preserve_index=False)
    columns = columns.replace_schema_metadata({**columns.schema.metadata, KEY: json.dumps(notes)})
    with suppress(OSError), replacing(_beside(csv)) as temporary:
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, columns.schema) as writer:
            writer.write_table(columns)
        with temporary.open("ab") as file:
            file.write(sums.total(sums.mapped(temporary)).to_bytes(sums.WORD, "little"))


def _beside(csv: Path) -> Path:
    return csv.with_name(f".{csv.stem}.arrow")
