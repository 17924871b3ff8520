"""results/table.csv: one row per ablation."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from xkd.protocols import Column
from xkd.report.collect import Results, Run
from xkd.report.hypotheses import Hypothesis, judged
from xkd.report.statistics import Comparison, compare, rounded, significant
from xkd.rows import spoken


def ablation_table(results: Results) -> pd.DataFrame:
    """Returns one row per ablation in the order of the settings; cells that do not apply are empty.

    Columns: ablation, settings, sweep and value (of rows that a sweep adds; only where there are sweeps), seeds,
    trainable_parameters, seconds (mean of pretraining); for every column of figures, such as student.video.linear,
    `<column>.mean`, `.sd`, `.difference` (to report.baseline, paired over seeds) and `.p` (two-sided, not corrected),
    in percent, `.metric` where it is not top1, and `.verdict` where a row has a hypothesis about it, such as "above ae:
    supported"; clips_train, clips_test; dataset and manifest of pretraining; mlflow_runs; for every entry of `tasks`,
    such as linear, `<task>.tested_clips` and `<task>.listed_clips`: test clips that were used, and those that the list
    of the data set names.
    """
    hypotheses = judged(results)
    return pd.DataFrame([_row(results, ablation, runs, hypotheses) for ablation, runs in results.runs.items()])


def comparison(results: Results, ablation: str, column: Column, reference: str | None = None) -> Comparison | None:
    """Compares a column of an ablation with `reference` (the baseline unless given); None where it lacks the column."""
    values = results.values(ablation, column)
    reference = reference or results.params.report.baseline
    return compare(values, results.values(reference, column)) if values else None


def changed_settings(changes: dict[str, Any]) -> str:
    """Returns settings that differ as `group.key=value; ...`."""
    return "; ".join(f"{key}={_compact(value)}" for key, value in _leaves(changes))


def _row(results: Results, ablation: str, runs: list[Run], hypotheses: list[Hypothesis]) -> dict[str, Any]:
    tracked = [run.record.tracking.run_id or "" for run in runs]
    row = {
        "ablation": ablation,
        "settings": changed_settings(results.params.ablations[ablation].changes),
        **_sweep(results, ablation),
        "seeds": len(runs),
        "trainable_parameters": runs[0].record.metrics.trainable_parameters,
        "seconds": round(sum(run.record.times.seconds for run in runs) / len(runs), 1),
    }
    for column in results.columns:
        row |= {f"{column}.{name}": value for name, value in _cells(comparison(results, ablation, column)).items()}
        if (metric := results.metric(column)) != "top1":
            row[f"{column}.metric"] = metric
        if about := [one for one in hypotheses if one.column == column]:
            said = (f"{one.direction} {one.than}: {one.verdict.word}" for one in about if one.ablation == ablation)
            row[f"{column}.verdict"] = "; ".join(said)
    row |= {
        "clips_train": runs[0].clips.train if runs[0].items else None,
        "clips_test": runs[0].clips.test if runs[0].items else None,
        "dataset": runs[0].dataset,
        "manifest": runs[0].record.metrics.manifest,
        "mlflow_runs": ";".join(tracked) if any(tracked) else "",
    }
    for task in (name for name in results.params.tasks if any(name in one[0].scores for one in results.runs.values())):
        scores = runs[0].scores.get(task)
        tested, listed = scores.clips.used("test") if scores else (None, None)
        row |= {f"{task}.tested_clips": _whole(tested), f"{task}.listed_clips": _whole(listed)}
    return row


def _sweep(results: Results, ablation: str) -> dict[str, str]:
    if not results.params.points:
        return {}
    point = next((point for point in results.params.points if point.added and point.row == ablation), None)
    return {"sweep": point.sweep if point else "", "value": ", ".join(map(spoken, point.values)) if point else ""}


def _whole(count: int | None) -> str:
    """Returns text, since a column of whole numbers with gaps would become one of fractions."""
    return "" if count is None else str(count)


def _cells(result: Comparison | None) -> dict[str, float | None]:
    if result is None:
        return dict.fromkeys(("mean", "sd", "difference", "p"))
    return {
        "mean": rounded(result.mean),
        "sd": rounded(result.sd),
        "difference": rounded(result.difference),
        "p": significant(result.p),
    }


def _leaves(changes: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    leaves: list[tuple[str, object]] = []
    for key, value in changes.items():
        leaves += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return leaves


def _compact(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")
