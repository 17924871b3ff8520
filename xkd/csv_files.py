"""Writes CSV files that are safe to open in a spreadsheet, and reads them back exactly.

A spreadsheet would run a text cell as a formula if the cell, or a part after ";" (where some spreadsheets split),
starts with = + - @ or a control character and is not a number. Such a cell gets an apostrophe, which reading removes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from xkd.files import replacing

_NUMBER = r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*(;|$)"
_FORMULA = rf"(?=\s*[=+\-@＝＋－＠]|[\t\r\n])(?!{_NUMBER})"  # the wide forms start formulas in East Asian versions
# The patterns include existing apostrophes, so that each text has exactly one escaped form.
_BARE = re.compile(rf"(?:^|(?<=;))(?='*{_FORMULA})")
_ESCAPED = re.compile(rf"(?:^|(?<=;))'(?='*{_FORMULA})")


def write_csv(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """Writes a table without its index, whole or not at all; `options` are those of `DataFrame.to_csv`."""
    with replacing(path) as temporary:
        _texts(table, _escaped).to_csv(temporary, index=False, lineterminator="\n", **options)


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Reads a table as text, empty cells as "", unless `options` of `pandas.read_csv` say otherwise.

    Raises:
        OSError: no such file, or not readable.
        ValueError: the content is not a table.
    """
    chosen: Any = {"dtype": str, "keep_default_na": False, **options}
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    table: pd.DataFrame = pd.read_csv(path, **chosen)
    if not isinstance(table.index, pd.RangeIndex):  # pandas would use the first cells as row names
        raise ValueError("its rows have more cells than its header")  # noqa: TRY004 (it is about the content)
    return _texts(table, _unescaped, lambda column: bool(column.astype(str).str.contains("'", regex=False).any()))


def _escaped(cell: object) -> object:
    return _BARE.sub("'", cell) if isinstance(cell, str) else cell


def _unescaped(cell: object) -> object:
    return _ESCAPED.sub("", cell) if isinstance(cell, str) else cell


def _texts(table: pd.DataFrame, change: Any, needed: Callable[[pd.Series], bool] = lambda _: True) -> pd.DataFrame:
    """Returns the table with the text cells changed of those columns in which a change is needed."""
    texts = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    return table.assign(**{name: table[name].map(change) for name in texts if needed(table[name])})
