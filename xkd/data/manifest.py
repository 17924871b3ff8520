"""Reads and writes manifests: one row per clip that was expected, usable or not."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import pandas as pd

from xkd import csv_files
from xkd.data.listing import LABEL_SEPARATOR, SPLIT_NAMES
from xkd.errors import UserError

MANIFEST_COLUMNS = (
    "id", "path", "split", "fold", "label", "seconds", "fps", "width", "height", "sample_rate",
    "has_video", "has_audio", "video_source", "audio_source", "digest", "status", "reason",
)  # fmt: skip
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
        all_rows: DataFrame of every clip expected.
        hash: short hash of the whole file's rows, whatever their order and wherever the clips lie.
    """

    path: Path
    all_rows: pd.DataFrame
    hash: str

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Returns the usable clips, in order."""
        return self.all_rows[self.all_rows["status"] == "ok"].reset_index(drop=True)

    @property
    def labels(self) -> list[str]:
        """Returns the label of each usable clip."""
        return self.rows["label"].tolist()

    @property
    def ids(self) -> list[str]:
        """Returns the id of each usable clip."""
        return self.rows["id"].tolist()

    def split(self, name: str, fold: str | None = None) -> Manifest:
        """Returns the clips of one split, of an official fold's if one is named; the hash stays that of the whole.

        Raises:
            UserError: no clip is tested in this fold.
        """
        roles = self.all_rows["split"] if fold is None else self._roles(fold)
        return Manifest(self.path, self.all_rows[roles == name].reset_index(drop=True), self.hash)

    def _roles(self, fold: str) -> pd.Series:
        """Returns the split of each clip in a fold.

        Column `fold` says in which fold a clip is tested ("2"), or its role in each ("1:train 2:unused").
        """
        roles = self.all_rows["fold"].map(lambda text: _role(text, fold))
        if not (roles == "test").any():
            named = sorted({word for text in self.all_rows["fold"] for word in re.findall(r"[^\s:]+(?=:|\s|$)", text)})
            known = ", ".join(word for word in named if word not in SPLIT_NAMES) or "none"
            raise UserError(f"{self.path}: no clip is tested in fold '{fold}'; folds: {known}")
        return roles


def _role(text: str, fold: str) -> str:
    if ":" in text:
        return dict(part.split(":", 1) for part in text.split()).get(fold, "unused")
    return "test" if text == fold else "train"


def read_manifest(path: str | Path) -> Manifest:
    """Reads a manifest.

    Raises:
        UserError: no such file, or not a manifest.
    """
    path = Path(path)
    try:
        table = csv_files.read_csv(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such manifest; run `python -m xkd prepare` first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable manifest ({' '.join(str(error).split())})") from None
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
    return Manifest(path, table, digest)


def write_manifest(path: Path, table: pd.DataFrame) -> str:
    """Writes a manifest, whole or not at all; returns its hash."""
    whole = {name: pd.to_numeric(table[name]).astype(kind) for name, kind in _NUMBERS.items()}
    table = table.assign(**whole)
    csv_files.write_csv(path, table, columns=list(MANIFEST_COLUMNS))
    return content_hash(csv_files.read_csv(path))


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
    """Returns a short SHA-256 of the rows as text, sorted and without paths: equal wherever the same clips lie."""
    lines = table.drop(columns="path").to_csv(index=False, lineterminator="\n").splitlines()
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]
