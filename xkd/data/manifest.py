"""Reads and writes manifests: one row per clip that was expected, usable or not."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from xkd import csv_files
from xkd.data import columns
from xkd.data.columns import Column
from xkd.data.listing import LABEL_SEPARATOR, SPLIT_NAMES
from xkd.errors import UserError
from xkd.files import read_json, sha256

MANIFEST_COLUMNS = (
    "id", "path", "split", "fold", "label", "seconds", "fps", "width", "height", "sample_rate",
    "has_video", "has_audio", "video_source", "audio_source", "digest", "status", "reason",
)  # fmt: skip
SUMMARY = "summary.json"  # beside a manifest: what `prepare` says about its clips
COLUMNS_VERSION = 1  # of the columns that are kept beside a manifest: another one when `read_manifest` makes others
_NOT_PLAIN = '[,"\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]'  # a CSV file quotes a cell that holds one, or it ends a line

_NUMBERS: dict[str, Literal["Float64", "Int64"]] = {
    "seconds": "Float64",
    "fps": "Float64",
    "width": "Int64",
    "height": "Int64",
    "sample_rate": "Int64",
}


@dataclass(frozen=True)
class Manifest:
    """Holds the clips of a data set, or of one of its splits.

    Attributes:
        path: the file; clip paths are relative to its folder.
        table: DataFrame of the whole file.
        hash: short hash of the whole file's rows, whatever their order and wherever the clips lie.
        numbers: which rows of the table these are; None: all.
    """

    path: Path
    table: pd.DataFrame
    hash: str
    numbers: np.ndarray | None = None

    @cached_property
    def all_rows(self) -> pd.DataFrame:
        """Returns every clip expected, in order."""
        return self._rows(self.numbers)

    @cached_property
    def usable(self) -> np.ndarray:
        """Returns which rows of the table are usable clips."""
        good = np.flatnonzero(self.table["status"] == "ok")
        return good if self.numbers is None else np.intersect1d(self.numbers, good, assume_unique=True)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Returns the usable clips, in order."""
        return self._rows(self.usable)

    @property
    def labels(self) -> list[str]:
        """Returns the label of each usable clip."""
        return self.rows["label"].tolist()

    @property
    def ids(self) -> list[str]:
        """Returns the id of each usable clip."""
        return self.rows["id"].tolist()

    def column(self, name: str) -> Column:
        """Returns a column of text of the usable clips, without a copy."""
        return Column(self.table[name].array, self.usable)

    def values(self, name: str) -> np.ndarray:
        """Returns a column of numbers of the usable clips: float64, NaN where a clip has none, or bool."""
        whole = self.table[name]
        values: np.ndarray = whole.to_numpy(bool if whole.dtype == bool else np.float64, na_value=np.nan)
        return np.take(values, self.usable)

    def split(self, name: str, fold: str | None = None) -> Manifest:
        """Returns the clips of one split, of an official fold's if one is named; the hash stays that of the whole.

        Raises:
            UserError: no clip is tested in this fold.
        """
        roles = self.table["split"] if fold is None else self._roles(fold)
        chosen = np.flatnonzero(roles == name)
        if self.numbers is not None:
            chosen = np.intersect1d(self.numbers, chosen, assume_unique=True)
        return Manifest(self.path, self.table, self.hash, chosen)

    def _rows(self, numbers: np.ndarray | None) -> pd.DataFrame:
        if numbers is None or len(numbers) == len(self.table):
            return self.table.copy(deep=False)
        return self.table.take(numbers).reset_index(drop=True)

    def _roles(self, fold: str) -> pd.Series:
        """Returns the split of each clip in a fold.

        Column `fold` says in which fold a clip is tested ("2"), or its role in each ("1:train 2:unused").
        """
        texts = self.table["fold"].unique()
        roles = self.table["fold"].map({text: _role(text, fold) for text in texts})
        if not (roles == "test").any():
            named = sorted({word for text in texts for word in re.findall(r"[^\s:]+(?=:|\s|$)", text)})
            known = ", ".join(word for word in named if word not in SPLIT_NAMES) or "none"
            raise UserError(f"{self.path}: no clip is tested in fold '{fold}'; folds: {known}")
        return roles


def _role(text: str, fold: str) -> str:
    if ":" in text:
        return dict(part.split(":", 1) for part in text.split()).get(fold, "unused")
    return "test" if text == fold else "train"


def read_manifest(path: str | Path, beside: bool = True) -> Manifest:
    """Reads a manifest: from the columns beside it, if they are of the present file, or else from itself.

    Args:
        beside: whether columns are read and, if there are none, written; else nothing is.

    Raises:
        UserError: no such file, or not a manifest.
    """
    path = Path(path)
    if not beside:
        return Manifest(path, *_read_csv(path))
    about = {"version": COLUMNS_VERSION, "sha256": _sha256(path)}
    kept = columns.read(path, about)
    if kept is None:
        table, digest = _read_csv(path)
        columns.keep(path, table, {**about, "hash": digest})
        kept = columns.read(path, about) or (table, {"hash": digest})
    return Manifest(path, kept[0], kept[1]["hash"])


def check_as_prepared(path: Path, digest: str) -> None:
    """Checks that the manifest of prepared clips holds what `prepare` noted beside it; others have no such note.

    Args:
        digest: its `hash`.

    Raises:
        UserError: it was edited or damaged.
    """
    summary = path.with_name(SUMMARY)
    if path.name != "manifest.csv":
        return
    try:
        noted = read_json(summary).get("hash", digest)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise UserError(f"{summary}: {error}; run `python -m xkd prepare` again") from None
    if noted != digest:
        raise UserError(
            f"{path}: edited or damaged since it was prepared (hash {digest}, {SUMMARY} says {noted}); run `python -m "
            "xkd prepare` again, and make changes in the list that it reads"
        )


def _sha256(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a readable manifest (not a regular file)")
    try:
        return sha256(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such manifest; run `python -m xkd prepare` first") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _read_csv(path: Path) -> tuple[pd.DataFrame, str]:
    """Reads a manifest and computes its content hash."""
    try:
        table = csv_files.read_csv(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    absent = [name for name in MANIFEST_COLUMNS if name not in table.columns]
    if absent:
        raise UserError(f"{path}: not a manifest: column '{absent[0]}' is missing; run `python -m xkd prepare` again")
    digest = content_hash(table)
    try:
        table = table.assign(**{name: pd.to_numeric(table[name]).astype(kind) for name, kind in _NUMBERS.items()})
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: a column holds no number ({error}); run `python -m xkd prepare` again") from None
    for name in ("has_video", "has_audio"):
        said = table[name].str.lower()  # spreadsheets save TRUE
        if not said.isin(("true", "false", "")).all():
            raise UserError(f"{path}: column '{name}' is not True or False; run `python -m xkd prepare` again")
        table[name] = said == "true"
    return table, digest


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: not a readable manifest ({' '.join(str(error).split())})")


def write_manifest(path: Path, table: pd.DataFrame) -> None:
    """Writes a manifest, whole or not at all."""
    whole = {name: pd.to_numeric(table[name]).astype(kind) for name, kind in _NUMBERS.items()}
    table = table.assign(**whole)
    csv_files.write_csv(path, table, columns=list(MANIFEST_COLUMNS))


def reasons(rows: pd.DataFrame) -> dict[str, int]:
    """Counts the unusable clips by kind of reason (its words before ": "), the most frequent first."""
    kinds = rows.loc[rows["status"] != "ok", "reason"].str.split(": ").str[0]
    return {str(kind): int(count) for kind, count in Counter(kinds).most_common()}


def class_counts(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Counts, per label, the clips that were expected, found and usable; a clip of several labels counts for each.

    Args:
        rows: all rows of a manifest.
    """
    states: dict[str, pd.Series | bool] = {
        "expected": True,
        "found": rows["reason"] != "missing",
        "usable": rows["status"] == "ok",
    }
    labelled = rows.assign(label=rows["label"].str.split(LABEL_SEPARATOR), **states).explode("label")
    counts = labelled.groupby("label")[list(states)].sum().astype(int)
    return {str(label): {state: int(row[state]) for state in states} for label, row in counts.to_dict("index").items()}


def content_hash(table: pd.DataFrame) -> str:
    """Returns a short SHA-256 of the rows as text, sorted and without paths: equal wherever the same clips lie.

    Args:
        table: all cells as text.
    """
    texts = table.drop(columns="path")
    quoted = np.zeros(len(texts), bool)
    for name in texts.columns:
        quoted |= texts[name].str.contains(_NOT_PLAIN).to_numpy(bool)
    lines = texts[quoted].to_csv(index=False, lineterminator="\n").splitlines()  # with the header
    plain = [pa.array(texts.loc[~quoted, name], pa.large_string()) for name in texts.columns]
    lines += pc.binary_join_element_wise(*plain, pa.scalar(",", pa.large_string())).to_pylist()
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]
