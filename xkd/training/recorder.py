"""What a run leaves as curves: one row per step, one per epoch, times kept in their own columns."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import torch

from xkd.files import replacing

COLUMNS = (
    "loss",
    "reconstruction_video",
    "reconstruction_audio",
    "distillation_video",
    "distillation_audio",
    "alignment_students",
    "alignment_teachers",
    "cross_entropy_video",
    "cross_entropy_audio",
    "learning_rate",
    "ema_momentum",
    "teacher_temperature_video",
    "teacher_temperature_audio",
    "gradient_norm",
    "teacher_entropy_video",
    "teacher_entropy_audio",
    "centre_norm_video",
    "centre_norm_audio",
    "feature_spread_video",
    "feature_spread_audio",
    "data_wait_seconds",
    "clips_per_second",
)
COUNTS = ("step", "epoch")
TIMES = ("data_wait_seconds", "clips_per_second")


class Recorder:
    """Collects rows; scalars stay tensors until an epoch ends, so that a GPU is not waited for each step."""

    def __init__(self) -> None:
        self.steps: list[dict] = []
        self.epochs: list[dict] = []
        self._pending: list[dict] = []

    def add(self, step: int, epoch: int, values: dict) -> None:
        """One step's scalars under names of `COLUMNS`."""
        self._pending.append({"step": step, "epoch": epoch, **values})

    def end_epoch(self, epoch: int) -> tuple[dict, list[dict]]:
        """Averages the epoch's steps; returns its row and the rows of its steps."""
        rows = self._numbers()
        frame = pd.DataFrame(rows).drop(columns=["step", "epoch"])
        summary = {"epoch": epoch, **frame.mean().to_dict()}
        summary["data_wait_seconds"] = float(frame["data_wait_seconds"].sum())
        self.steps += rows
        self.epochs.append(summary)
        self._pending = []
        return summary, rows

    def write(self, out: Path) -> None:
        """history.csv (per epoch) and steps.csv (per step); columns a run does not have are empty."""
        for name, rows, index in (
            ("history.csv", self.epochs, ["epoch"]),
            ("steps.csv", self.steps, ["step", "epoch"]),
        ):
            frame = pd.DataFrame(rows, columns=[*index, *COLUMNS])
            with replacing(out / name) as path:
                frame.to_csv(path, index=False, float_format="%.9g")

    def last_epoch(self, prefixes: tuple[str, ...]) -> dict[str, float]:
        """The last epoch's averages of the columns whose names start with one of `prefixes`."""
        last = self.epochs[-1] if self.epochs else {}
        return {k: last[k] for k in COLUMNS if k in last and k.startswith(prefixes)}

    def state_dict(self) -> dict:
        """Rows as tables, those of the unfinished epoch too: a million rows must load in no time."""
        self._pending = self._numbers()
        rows = {"steps": self.steps, "epochs": self.epochs, "pending": self._pending}
        return {name: _as_table(of) for name, of in rows.items()}

    def load_state_dict(self, state: dict) -> None:
        self.steps, self.epochs, self._pending = (_as_rows(state[name]) for name in ("steps", "epochs", "pending"))

    def _numbers(self) -> list[dict]:
        return [{k: v.item() if isinstance(v, torch.Tensor) else v for k, v in row.items()} for row in self._pending]


def _as_table(rows: list[dict]) -> dict:
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = [[row.get(name, math.nan) for name in names] for row in rows]
    return {"names": names, "values": torch.tensor(values, dtype=torch.float64)}


def _as_rows(table: dict) -> list[dict]:
    rows = []
    for values in table["values"].tolist():
        row = {name: value for name, value in zip(table["names"], values, strict=True) if not math.isnan(value)}
        rows.append({name: int(value) if name in COUNTS else value for name, value in row.items()})
    return rows
