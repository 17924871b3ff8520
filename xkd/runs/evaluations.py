"""The files of an evaluation: `<task>.json`, the results, and those beside it with the same name and another suffix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from xkd import csv_files, runs
from xkd.errors import UserError
from xkd.files import check_output, read_json, replacing, sha256, write_json
from xkd.runs.records import EvaluationRecord, read_record

EVALUATIONS = Path("evals")
RESULTS, PREDICTIONS, CONFUSION, SCORES, TIMES = (
    *(".json", ".predictions.csv", ".confusion.csv"),
    *(".scores.parquet", ".times.json"),
)
CONFUSION_COLUMNS = ["method", "label", "predicted", "clips"]
IDENTITY = ("dataset", "ablation", "seed", "task")  # keys of the results that say what was evaluated


def folder_of(dataset: str, ablation: str, seed: int | str) -> Path:
    """Returns the folder of the evaluations of a run of a data set."""
    return EVALUATIONS / runs.name_of(dataset, ablation, seed)


def check_free(out: Path, inputs: Iterable[Path], identity: dict[str, Any], force: bool) -> None:
    """Checks that `out` and the files beside it are free, or hold earlier results of the same run and task.

    Args:
        identity: `IDENTITY` of the new results.
        force: other files of these names may be replaced.

    Raises:
        UserError: they do not, or `out` has another suffix.
    """
    if out.suffix != RESULTS:
        raise UserError(f"--out {out}: JSON is written; give a name that ends in .json")
    try:
        earlier = read_json(out)
        ours = {key: earlier[key] for key in IDENTITY} == identity
    except (OSError, ValueError, KeyError):
        ours = False
    inputs = list(inputs)
    for suffix in (RESULTS, PREDICTIONS, CONFUSION, SCORES, TIMES):
        check_output(out.with_suffix(suffix), inputs, force, ours)


def write_files(
    out: Path,
    results: dict[str, Any],
    predictions: pd.DataFrame,
    confusions: pd.DataFrame,
    write_scores: Callable[[Path], None],
) -> None:
    """Writes all files before the first is moved to its place; the results, with the others' hashes, come last.

    Where there are none yet, they say first whose the others are: after a kill, `check_free` must know them.
    """
    with ExitStack() as stack:
        last = stack.enter_context(replacing(out))
        beside = {s: stack.enter_context(replacing(out.with_suffix(s))) for s in (PREDICTIONS, CONFUSION, SCORES)}
        csv_files.write_csv(beside[PREDICTIONS], predictions)
        csv_files.write_csv(beside[CONFUSION], confusions)
        write_scores(beside[SCORES])
        hashes = {suffix: sha256(path) for suffix, path in beside.items()}
        write_json(last, results | {"files": hashes}, sealed=True)
        if not out.exists():
            write_json(out, {key: results[key] for key in IDENTITY}, sealed=True)


def read_results(path: Path, run: Path, command: str) -> EvaluationRecord:
    """Reads results, and checks that the files beside them and the run's weights are those that they are about.

    Args:
        run: folder of the run that they judge.
        command: what makes them.

    Raises:
        UserError: a file is missing, unreadable, or of another evaluation or run.
    """
    record = read_record(path, EvaluationRecord, command)
    if record.encoders != runs.encoders_hash(run):
        raise UserError(f"{path}: judges other encoders than those in {run}; make it with: {command}")
    for suffix, digest in record.files.items():
        beside = path.with_suffix(suffix)
        if beside.is_file() and sha256(beside) != digest:
            raise UserError(f"{beside}: not the file that was written with {path.name}; make both with: {command}")
    return record


def read_confusions(results: Path) -> pd.DataFrame:
    """Reads the confusions beside results: columns method, label, predicted, clips.

    Evaluations of clips with several labels, and those of earlier versions, have no rows.

    Raises:
        UserError: the file is damaged.
    """
    path = results.with_suffix(CONFUSION)
    try:
        return csv_files.read_csv(path)[CONFUSION_COLUMNS].astype({"clips": int})
    except FileNotFoundError:
        return pd.DataFrame(columns=CONFUSION_COLUMNS)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: unreadable ({error}); remove it and evaluate that run again") from error
