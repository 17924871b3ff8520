"""Reads the files of runs and evaluations, as far as the report needs them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, FiniteFloat, RootModel, ValidationError

from xkd import csv_files, runs
from xkd.errors import UserError
from xkd.files import check_seal, read_json

Record = TypeVar("Record", bound=BaseModel)


class RunMetrics(BaseModel):
    """Content of metrics.json."""

    manifest: str
    trainable_parameters: int
    clips: int | None = None
    given: dict[str, str] = {}


class RunTimes(BaseModel):
    """Content of times.json."""

    seconds: FiniteFloat


class RunTracking(BaseModel):
    """Content of mlflow.json."""

    run_id: str | None
    experiment_id: str | None = None  # earlier versions did not keep it, and no run is trained again for a link


class RunVersions(RootModel[dict[str, str | None]]):
    """Content of versions.json."""


class ClipsUsed(BaseModel):
    """Counts clips that took part and those that the data set's list names, with reasons; each once over all folds."""

    train: int
    test: int
    listed_train: int | None = None  # earlier versions did not count them
    listed_test: int | None = None
    left_out: dict[str, dict[str, int]] = {}

    def used(self, split: str) -> tuple[int, int | None]:
        """Returns how many clips of a split took part, and of how many."""
        return (self.test, self.listed_test) if split == "test" else (self.train, self.listed_train)


class FoldRecord(BaseModel):
    """Results of one fold."""

    clips: ClipsUsed


class EvaluationRecord(BaseModel):
    """Content of an evaluation's results."""

    dataset: str
    task: str
    protocol: str
    manifest: str
    clips: ClipsUsed
    items: dict[str, int]
    metrics: dict[str, FiniteFloat]
    encoders: str
    files: dict[str, str]
    chance: dict[str, FiniteFloat] = {}
    notes: list[str] = []
    folds: dict[str, FoldRecord] = {}


@dataclass(frozen=True)
class RunRecord:
    """Contents of a run's JSON files."""

    metrics: RunMetrics
    times: RunTimes
    tracking: RunTracking
    versions: RunVersions


def read_run(folder: Path, command: str) -> RunRecord:
    """Reads the JSON files of a complete run.

    Args:
        command: what makes the run.

    Raises:
        UserError: the run is incomplete, or a file is missing or not as `pretrain` writes it.
    """
    runs.check(folder, command, weights=False)
    return RunRecord(
        read_record(folder / runs.METRICS, RunMetrics, command),
        read_record(folder / runs.TIMES, RunTimes, command),
        read_record(folder / runs.TRACKING, RunTracking, command),
        read_record(folder / runs.VERSIONS, RunVersions, command),
    )


def read_record(path: Path, model: type[Record], command: str) -> Record:
    """Reads one JSON file.

    Args:
        command: what makes the file.

    Raises:
        UserError: it is missing or not as the model says.
    """
    try:
        return model.model_validate_json(check_seal(path.read_bytes()))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; make it with: {command}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "content"
        raise UserError(f"{path}: {key}: {problem['msg']}; remove the file and make it with: {command}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; remove the file and make it with: {command}") from None


def read_curve(path: Path) -> pd.DataFrame:
    """Reads history.csv or steps.csv.

    Raises:
        UserError: it is unreadable.
    """
    try:
        return csv_files.read_csv(path, dtype=float, keep_default_na=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: unreadable ({error}); remove it and pretrain that run again") from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of samples.npz or embeddings.npz.

    Raises:
        UserError: it is unreadable.
    """
    try:
        with np.load(path) as archive:
            return dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: unreadable ({error}); remove it and pretrain that run again") from error


def mlflow_id(run: Path) -> str | None:
    """Returns the id of a run in MLflow; None where it was not tracked, or where no file tells."""
    try:
        run_id: str | None = read_json(run / runs.TRACKING)["run_id"]
        return run_id
    except (OSError, ValueError, KeyError):
        return None  # tracking is a convenience: a run without it is evaluated all the same
