"""Counts of clips and labels that the report gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xkd import csv_files
from xkd.data.listing import LABEL_SEPARATOR
from xkd.errors import UserError
from xkd.files import read_json


@dataclass(frozen=True)
class DataFacts:
    """Facts of the manifest that the runs were made from."""

    expected: int
    found: int
    usable: int
    splits: dict[str, int]
    reasons: dict[str, int]
    labels: int
    several: bool

    @property
    def chance(self) -> float | None:
        """Percent right when every label is guessed equally often; None where clips have several labels, or none."""
        return 100 / self.labels if self.labels and not self.several else None


def data_facts(folder: Path, manifest: str) -> DataFacts | None:
    """Reads summary.json and manifest.csv of `folder`; None where the prepared data are not there (any more).

    Args:
        folder: data/<dataset>.
        manifest: the hash that all runs name.

    Raises:
        UserError: the data were prepared anew since the runs were made, or a file is unreadable.
    """
    try:
        summary = read_json(folder / "summary.json")
        made_now = summary["hash"]
        rows = csv_files.read_csv(folder / "manifest.csv")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder}: summary.json or manifest.csv is unreadable ({error}); run python -m xkd prepare"
        ) from None
    if made_now != manifest:
        raise UserError(
            f"{folder}/summary.json: manifest {made_now}, but the runs were made from {manifest}; "
            "pretrain and evaluate again, or restore the data"
        )
    labels = rows.label[(rows.status == "ok") & (rows.label != "")]
    return DataFacts(
        **{key: summary[key] for key in ("expected", "found", "usable", "splits", "reasons")},
        labels=labels.str.split(LABEL_SEPARATOR).explode().nunique(),
        several=bool(labels.str.contains(LABEL_SEPARATOR, regex=False).any()),
    )
