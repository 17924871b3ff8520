"""The curves of a run: one row per step and one per epoch, with times in columns of their own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import pandas as pd
import torch
from torch import Tensor

from xkd import csv_files
from xkd.logged import LoggedColumn
from xkd.runs import HISTORY, STEPS
from xkd.training.schedules import SCHEDULED

STEP_TIMES = ("data_wait_seconds", "clips_per_second")
COUNTS = ("step", "epoch")

CurveRow = dict[str, float]


class CurveTable(TypedDict):
    """Rows as the columns' names and values (rows, columns), NaN where a row has none."""

    names: list[str]
    values: Tensor


class Recorder:
    """Collects rows. A step's scalars stay on the device, as one tensor, until rows are asked for.

    Args:
        columns: what a step logs.

    Attributes:
        losses, diagnostics: names of those columns, and of the objective and its gradient's norm.
    """

    def __init__(self, columns: Sequence[LoggedColumn]) -> None:
        self.losses = ("loss", *(column.name for column in columns if column.kind == "loss"))
        self.diagnostics = ("gradient_norm", *(column.name for column in columns if column.kind == "diagnostic"))
        self.steps: list[CurveRow] = []
        self.epochs: list[CurveRow] = []
        self._pending: list[CurveRow] = []
        self._device: list[tuple[CurveRow, list[str], Tensor]] = []

    def add(self, step: int, epoch: int, values: Mapping[str, float | Tensor]) -> None:
        """Adds one step's scalars by the names of their columns."""
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        row = {name: math.nan if isinstance(value, Tensor) else value for name, value in values.items()}
        self._device.append(({"step": step, "epoch": epoch, **row}, [*tensors], torch.stack([*tensors.values()])))

    def end_epoch(self, epoch: int, judged: CurveRow) -> tuple[CurveRow, list[CurveRow]]:
        """Averages the epoch's steps; returns its row and the rows of its steps, none where no step was added.

        Args:
            judged: more values for the epoch's row.
        """
        rows = self._numbers()
        if not rows:
            return {"epoch": epoch}, []
        frame = pd.DataFrame(rows).drop(columns=["step", "epoch"]).replace([math.inf, -math.inf], math.nan)
        summary: CurveRow = {"epoch": epoch, **{str(name): float(mean) for name, mean in frame.mean().items()}}
        summary["data_wait_seconds"] = float(frame["data_wait_seconds"].sum())
        summary |= judged
        self.steps += rows
        self.epochs.append(summary)
        self._pending = []
        return summary, rows

    def rows(self) -> list[CurveRow]:
        """Returns the rows of all steps so far, after one copy of all that the device still holds."""
        return self.steps + self._numbers()

    def write(self, out: Path, own: Iterable[str]) -> None:
        """Writes history.csv (per epoch) and steps.csv (per step).

        Args:
            own: columns of ours. They are always there, empty where a run has no values, so that files of all runs are
                alike; then come those of plugins, and what epochs were judged by.
        """
        first = {"loss", "gradient_norm", *SCHEDULED, *STEP_TIMES, *own}
        columns = (*self.losses, *SCHEDULED, *self.diagnostics, *STEP_TIMES)
        columns = tuple(sorted(columns, key=lambda name: name not in first))
        judged = dict.fromkeys(name for row in self.epochs for name in row if name not in {"epoch", *columns})
        history, steps = ["epoch", *columns, *judged], ["step", "epoch", *columns]
        for name, rows, shown in ((HISTORY, self.epochs, history), (STEPS, self.steps, steps)):
            csv_files.write_csv(out / name, pd.DataFrame(rows, columns=shown), float_format="%.9g")

    def last_epoch(self, columns: tuple[str, ...]) -> dict[str, float]:
        """Returns the last epoch's averages of those columns that the run has."""
        last = self.epochs[-1] if self.epochs else {}
        return {name: last[name] for name in columns if name in last}

    def state_dict(self) -> dict[str, CurveTable]:
        """Returns rows as tables, those of the unfinished epoch too: a million rows must load in no time."""
        rows = {"steps": self.steps, "epochs": self.epochs, "pending": self._numbers()}
        return {name: _as_table(of) for name, of in rows.items()}

    def load_state_dict(self, state: dict[str, CurveTable]) -> None:
        """Takes up what `state_dict` gave."""
        self.steps, self.epochs = _as_rows(state["steps"]), _as_rows(state["epochs"])
        self._pending, self._device = _as_rows(state["pending"]), []

    def _numbers(self) -> list[CurveRow]:
        """Returns the rows of the unfinished epoch, after one copy of all that the device still holds."""
        if self._device:
            numbers = iter(torch.cat([values for _, _, values in self._device]).tolist())
            for row, names, _ in self._device:
                self._pending.append(row | dict(zip(names, numbers, strict=False)))
            self._device = []
        return self._pending


def _as_table(rows: list[CurveRow]) -> CurveTable:
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = [[row.get(name, math.nan) for name in names] for row in rows]
    return {"names": names, "values": torch.tensor(values, dtype=torch.float64)}


def _as_rows(table: CurveTable) -> list[CurveRow]:
    rows = []
    for values in table["values"].tolist():
        row = {name: value for name, value in zip(table["names"], values, strict=True) if not math.isnan(value)}
        rows.append({name: int(value) if name in COUNTS else value for name, value in row.items()})
    return rows
