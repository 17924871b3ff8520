"""What a run leaves as curves: one row per step, one per epoch, times kept in their own columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import pandas as pd
import torch
from torch import Tensor

from xkd import csv_files
from xkd.modalities import MODALITIES
from xkd.runs import HISTORY, STEPS
from xkd.training.supervised import SupervisedObjective
from xkd.training.terms import TERMS

LOSSES = ("loss", *(name for term in TERMS.values() for name in term.losses), *SupervisedObjective.losses)
SCHEDULED = ("learning_rate", "ema_momentum", "teacher_temperature_video", "teacher_temperature_audio")
DIAGNOSTICS = (
    "gradient_norm",
    *(name for term in TERMS.values() for name in term.diagnostics),
    *(f"feature_spread_{modality}" for modality in MODALITIES),
)
TIMES = ("data_wait_seconds", "clips_per_second")
COLUMNS = (*LOSSES, *SCHEDULED, *DIAGNOSTICS, *TIMES)
COUNTS = ("step", "epoch")

Row = dict[str, float]


class Table(TypedDict):
    """Rows as columns' names and values (rows, columns), NaN where a row has none."""

    names: list[str]
    values: Tensor


class Recorder:
    """Collects rows; scalars stay tensors until an epoch ends, so that a GPU is not waited for each step."""

    def __init__(self) -> None:
        self.steps: list[Row] = []
        self.epochs: list[Row] = []
        self._pending: list[Mapping[str, float | Tensor]] = []

    def add(self, step: int, epoch: int, values: Mapping[str, float | Tensor]) -> None:
        """One step's scalars under names of `COLUMNS`."""
        self._pending.append({"step": step, "epoch": epoch, **values})

    def end_epoch(self, epoch: int) -> tuple[Row, list[Row]]:
        """Averages the epoch's steps; returns its row and the rows of its steps."""
        rows = self._numbers()
        frame = pd.DataFrame(rows).drop(columns=["step", "epoch"])
        summary: Row = {"epoch": epoch, **{str(name): float(mean) for name, mean in frame.mean().items()}}
        summary["data_wait_seconds"] = float(frame["data_wait_seconds"].sum())
        self.steps += rows
        self.epochs.append(summary)
        self._pending = []
        return summary, rows

    def write(self, out: Path) -> None:
        """history.csv (per epoch) and steps.csv (per step); columns a run does not have are empty."""
        for name, rows, index in (
            (HISTORY, self.epochs, ["epoch"]),
            (STEPS, self.steps, ["step", "epoch"]),
        ):
            csv_files.write(out / name, pd.DataFrame(rows, columns=[*index, *COLUMNS]), float_format="%.9g")

    def last_epoch(self, columns: tuple[str, ...]) -> dict[str, float]:
        """Returns the last epoch's averages of those columns that the run has."""
        last = self.epochs[-1] if self.epochs else {}
        return {name: last[name] for name in columns if name in last}

    def state_dict(self) -> dict[str, Table]:
        """Rows as tables, those of the unfinished epoch too: a million rows must load in no time."""
        pending = self._numbers()
        self._pending = [*pending]
        rows = {"steps": self.steps, "epochs": self.epochs, "pending": pending}
        return {name: _as_table(of) for name, of in rows.items()}

    def load_state_dict(self, state: dict[str, Table]) -> None:
        self.steps, self.epochs = _as_rows(state["steps"]), _as_rows(state["epochs"])
        self._pending = [*_as_rows(state["pending"])]

    def _numbers(self) -> list[Row]:
        return [{k: v.item() if isinstance(v, Tensor) else v for k, v in row.items()} for row in self._pending]


def _as_table(rows: list[Row]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = [[row.get(name, math.nan) for name in names] for row in rows]
    return {"names": names, "values": torch.tensor(values, dtype=torch.float64)}


def _as_rows(table: Table) -> list[Row]:
    rows = []
    for values in table["values"].tolist():
        row = {name: value for name, value in zip(table["names"], values, strict=True) if not math.isnan(value)}
        rows.append({name: int(value) if name in COUNTS else value for name, value in row.items()})
    return rows
