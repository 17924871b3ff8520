"""What an evaluation's JSON file says: metrics with intervals, what was counted, and notes that qualify them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from xkd import registry
from xkd.data import manifest as manifests
from xkd.downstream import notes
from xkd.downstream.features import ClipOutputs
from xkd.downstream.job import EvaluationJob
from xkd.downstream.metrics import DECIMALS, chance_rates, draw_intervals, per_class, ranking_intervals, summarise
from xkd.downstream.scores import Judged, Scores
from xkd.settings import Retrieval

JUDGED_SPLITS = ("train", "test")


def results_of(job: EvaluationJob[Any], judged: list[Judged]) -> dict[str, Any]:
    """Returns the results of all folds, or of the only one: figures, intervals, counts and notes."""
    folds = {one.fold: _of_one_fold(job, one) for one in judged}
    if len(folds) == 1:
        return folds[judged[0].fold]
    counts = {"items": _items([one.test for one in judged], job), "clips": _counts(job, list(folds))}
    return _over_folds(folds) | counts


def _of_one_fold(job: EvaluationJob[Any], judged: Judged) -> dict[str, Any]:
    scores, test = judged.scores, judged.test
    values, intervals = summarise(scores, test)
    of_map, of_classes = ranking_intervals(scores, test)
    drawn = [one for one in scores if isinstance(one, Scores) and one.draws]
    remarks = dict.fromkeys(note for one in scores for note in (*one.notes, *notes.of_scores(one)))
    return {
        "items": _items([test], job),
        "clips": _counts(job, [judged.fold]),
        "metrics": values,
        "intervals": intervals | of_map | draw_intervals(drawn),
        "chance": chance_rates(scores, test),
        "per_class": per_class(scores, test),
        **({"per_class_intervals": of_classes} if of_classes else {}),
        **({"draws": {str(one.column): np.round(one.draws, DECIMALS).tolist() for one in drawn}} if drawn else {}),
        "chosen": {key: value for one in scores for key, value in one.chosen.items()},
        "notes": [*_notes(job, judged.fold), *remarks],
    }


def _items(tests: list[ClipOutputs], job: EvaluationJob[Any]) -> dict[str, int]:
    """Counts the distinct sources that the test clips are made of, for each modality that is judged."""
    return {
        modality: len({name for test in tests for name in test.items[modality].tolist()})
        for modality in reversed(job.modalities)
    }


def _counts(job: EvaluationJob[Any], folds: list[str | None]) -> dict[str, Any]:
    """Counts the clips that took part and those that the data set's list names, and says why the others were left out.

    A clip that several folds train on, or test, counts once.
    """
    rows = {split: [job.manifest.split(split, fold).all_rows for fold in folds] for split in JUDGED_SPLITS}
    listed = {split: of[0] if len(of) == 1 else pd.concat(of).drop_duplicates() for split, of in rows.items()}
    return {
        **{split: int((of["status"] == "ok").sum()) for split, of in listed.items()},
        **{f"listed_{split}": len(rows) for split, rows in listed.items()},
        "left_out": {split: manifests.reasons(rows) for split, rows in listed.items()},
    }


def _notes(job: EvaluationJob[Any], fold: str | None) -> list[str]:
    """Returns what the manifest's rows say against the figures of a fold."""
    train, test = (job.manifest.split(split, fold).rows for split in JUDGED_SPLITS)
    trained, tested = (rows["label"].to_numpy(str) for rows in (train, test))
    of_clips = notes.of_clips(train, test, job.modalities)
    if registry.protocols[job.task.protocol].learns_labels:
        return notes.of_labels(trained, tested) + of_clips
    # Nothing is learned from labels here, but they may say what is found.
    by_label = isinstance(job.settings, Retrieval) and job.settings.relevant == "label"
    return (notes.of_labels(tested, tested) if by_label else []) + of_clips


def _over_folds(folds: dict[str | None, dict[str, Any]]) -> dict[str, Any]:
    """Returns means over official folds with their spread, and every fold's own results."""
    parts = list(folds.values())
    common = [name for name in parts[0]["metrics"] if all(name in part["metrics"] for part in parts)]
    every = {name: np.array([part["metrics"][name] for part in parts]) for name in common}
    return {
        "chance": {
            k: round(float(np.mean([part["chance"][k] for part in parts])), DECIMALS) for k in parts[0]["chance"]
        },
        "metrics": {name: round(float(values.mean()), DECIMALS) for name, values in every.items()},
        "spread": {name: round(float(values.std(ddof=1)), DECIMALS) for name, values in every.items()},
        "notes": notes.over_folds({str(fold): part["notes"] for fold, part in folds.items()}),
        "folds": folds,
    }
