"""Reads and writes lists of raw media files: the index that `download` writes, and users' own."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

import pandas as pd

from xkd import csv_files
from xkd.errors import UserError

LISTING_COLUMNS = ("id", "path", "split", "label", "fold", "video_source", "audio_source")
LABEL_SEPARATOR = ";"  # between the labels of a clip that has several
SPLIT_NAMES = ("train", "val", "test", "unused")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_EMPTY_LABEL = re.compile(f"^{LABEL_SEPARATOR}|{LABEL_SEPARATOR}{LABEL_SEPARATOR}|{LABEL_SEPARATOR}$")


def read_listing(path: Path) -> pd.DataFrame:
    """Reads a list: all `LISTING_COLUMNS` as text, absent ones empty; ids default to the path without its suffix.

    Raises:
        UserError: no such file, not a table, no or unknown columns, no rows, an unknown split.
    """
    table = _table(path)
    unknown = [name for name in table.columns if name not in LISTING_COLUMNS]
    if unknown:
        raise UserError(f"{path}: unknown column '{unknown[0]}'; known: {', '.join(LISTING_COLUMNS)}")
    return checked(completed(table), str(path))


def completed(table: pd.DataFrame) -> pd.DataFrame:
    """Adds absent columns, and the default where id or split is empty.

    Labels, folds and sources that look the same become the same: spaces around them are removed, Unicode is composed
    (macOS decomposes it), and a label that a clip has twice is kept once.
    """
    table = table.reindex(columns=list(LISTING_COLUMNS), fill_value="")
    table["id"] = table["id"].where(table["id"] != "", table["path"].map(lambda p: str(Path(p).with_suffix(""))))
    table["split"] = table["split"].replace("", "train")
    return table.assign(**{name: table[name].map(_plain) for name in ("label", "fold", "video_source", "audio_source")})


def checked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Returns the table, if its splits are known, no text has control characters, and none of several labels is empty.

    Args:
        name: of the table, for messages.

    Raises:
        UserError: otherwise.
    """
    odd = table.loc[~table["split"].isin(SPLIT_NAMES), "split"]
    if len(odd):
        raise UserError(
            f"{name}: line {odd.index[0] + 2}: split '{odd.iloc[0]}' is not one of {', '.join(SPLIT_NAMES)}"
        )
    for column in LISTING_COLUMNS:
        _refuse(table, column, _UNPRINTABLE, "holds a control character; rename it", name)
    _refuse(table, "label", _EMPTY_LABEL, f"has an empty label between '{LABEL_SEPARATOR}'", name)
    return table


def _refuse(table: pd.DataFrame, column: str, pattern: re.Pattern[str], reason: str, name: str) -> None:
    odd = table.loc[[pattern.search(text) is not None for text in table[column]], column]
    if len(odd):
        raise UserError(f"{name}: line {odd.index[0] + 2}: {column} {odd.iloc[0]!a} {reason}")


def _plain(text: str) -> str:
    parts = unicodedata.normalize("NFC", text).split(LABEL_SEPARATOR)
    return LABEL_SEPARATOR.join(dict.fromkeys(part.strip() for part in parts))


def paths(path: Path) -> list[Path]:
    """Returns the files that a table with a column `path`, a list or a manifest, names: relative to its folder.

    Raises:
        UserError: no such file, not a table, no such column, no rows.
    """
    return [path.parent / name for name in _table(path)["path"]]


def write_listing(path: Path, table: pd.DataFrame) -> None:
    """Writes a list, whole or not at all."""
    csv_files.write_csv(path, table, columns=list(LISTING_COLUMNS))


def relative_to(folder: Path, table: pd.DataFrame, listed_in: Path) -> pd.DataFrame:
    """Makes paths that are relative to the folder `listed_in` relative to `folder`."""
    start, place = os.path.realpath(folder), os.path.realpath(listed_in)  # `data` is often a link to a larger disk
    paths = [os.path.relpath(os.path.join(place, name), start) for name in table["path"]]
    return table.assign(path=paths)


def _table(path: Path) -> pd.DataFrame:
    try:
        table = csv_files.read_csv(path, skipinitialspace=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `python -m xkd download` or correct the path") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable CSV ({' '.join(str(error).split())})") from None
    if "path" not in table.columns:
        raise UserError(f"{path}: has no column 'path'; columns: {', '.join(table.columns)}")
    if table.empty:
        raise UserError(f"{path}: lists no clips; give at least one row")
    if (table["path"] == "").any():
        raise UserError(f"{path}: line {table.index[table['path'] == ''][0] + 2} has no path")
    nameless = table["path"].map(lambda name: Path(name).name in ("", ".."))
    if nameless.any():
        row = table.index[nameless][0]
        raise UserError(f"{path}: line {row + 2}: '{table['path'][row]}' is not the path of a file")
    return table
