"""Curves and signs of collapse come from what the runs say of their columns."""

import json
from dataclasses import asdict

import pandas as pd
import pytest
from run_folders import seal

from xkd.errors import UserError
from xkd.logged import CollapseSign, LoggedColumn, Threshold
from xkd.report import collapse, curves
from xkd.report.collect import collect

SIGN = CollapseSign(
    "variance, logits", "logits", "1", (Threshold("collapsed", 0.1, "are constant", "variance {level:g}", below=True),)
)
PLUGGED = (
    LoggedColumn("barlow", "Barlow Twins, students"),
    LoggedColumn("variance", "variance of logits", "diagnostic", limit="1", sign=SIGN),
)


def change(project, ablation, seed, columns=PLUGGED, **values):
    """Lets a run log more columns."""
    run = project.run_folder(ablation, seed)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["columns"] += [asdict(column) for column in columns]
    (run / "metrics.json").write_text(json.dumps(metrics))
    for file in ("steps.csv", "history.csv"):
        table = pd.read_csv(run / file)
        table.assign(**values).to_csv(run / file, index=False)
    seal(run)


@pytest.fixture
def plugged(project):
    for seed in (0, 1, 2):
        change(project, "xkd", seed, barlow=0.25 + seed, variance=0.05)
    return collect(project.params)


def titles(figure):
    return [axis.get_title(loc="left") for axis in figure.axes]


def test_our_own_panels_keep_their_titles_and_order(project):
    results = collect(project.params)
    assert titles(curves.loss_curves(results)) == [
        *("reconstruction, video", "distillation, video student", "alignment, students"),
    ]
    figure = curves.diagnostic_curves(results)
    assert titles(figure) == ["teacher entropy, video", "centre norm, video", "student feature spread, video"]
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["log K", "√K"]
    assert titles(curves.alignment_curves(results)) == ["students"]


def test_a_loss_of_a_plugin_is_drawn_after_ours_and_told_in_words(plugged):
    figure = curves.loss_curves(plugged)
    assert titles(figure)[-1] == "Barlow Twins, students"
    assert "Line plots of 4 loss terms" in figure.get_label()
    assert "Barlow Twins, students: xkd 1.25" in figure.get_label()


def test_a_sign_of_a_plugin_is_drawn_judged_and_explained(plugged):
    assert titles(curves.diagnostic_curves(plugged))[-1] == "variance of logits"
    table = collapse.verdict_table(plugged)
    row = next(dict(zip(table.header, row, strict=True)) for row in table.rows if row[0] == "xkd")
    assert "logits: are constant" in row["verdict"]
    assert row["verdict"].startswith("collapsed")
    assert row["variance, logits"] == "0.05 → 0.05"
    assert collapse.verdict_rules(plugged)["collapsed"][-1] == "variance 0.1"


def test_a_run_that_does_not_describe_its_columns_is_named(project):
    run = project.run_folder("ae", 1)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"columns": [{"name": "loss"}]}))
    seal(run)
    with pytest.raises(UserError, match="ae/seed1/metrics.json: the run does not say what it logs"):
        curves.loss_curves(collect(project.params))
