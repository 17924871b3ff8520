"""The rule that says in plain words whether a run collapsed."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xkd.collapse import alarms
from xkd.collapse import readings as readings_of
from xkd.report import collapse
from xkd.report.collect import collect
from xkd.training.objective import OWN_COLUMNS

K = 64


def readings(table, logits=K):
    return readings_of(table, OWN_COLUMNS, logits)


def steps(**ends):
    """100 steps that go from a harmless start to the given ends, in natural units of each indicator."""
    starts = {"teacher_entropy": 0.5, "centre_norm": 0.2, "feature_spread": 1.0}
    scales = {"teacher_entropy": math.log(K), "centre_norm": math.sqrt(K), "feature_spread": 0.3}
    columns = {}
    for name, start in starts.items():
        for modality in ("video", "audio"):
            end = ends.get(f"{name}_{modality}", start)
            columns[f"{name}_{modality}"] = scales[name] * np.r_[np.full(50, start), np.full(50, end)]
    return pd.DataFrame(columns)


@pytest.mark.parametrize(
    ("ends", "word", "reason"),
    [
        ({}, "healthy", "no sign of collapse"),
        ({"teacher_entropy_audio": 0.995}, "collapsed", "audio teacher: targets uniform"),
        ({"teacher_entropy_video": 0.92}, "suspect", "video teacher: targets almost uniform"),
        ({"teacher_entropy_video": 0.03}, "suspect", "video teacher: targets one-hot"),
        ({"centre_norm_video": 0.997}, "collapsed", "video teacher: outputs the same for all clips"),
        ({"centre_norm_audio": 0.98}, "suspect", "audio teacher: outputs almost the same for all clips"),
        ({"feature_spread_audio": 0.05}, "collapsed", "audio student: features the same for all clips"),
        (
            {"teacher_entropy_video": 0.92, "centre_norm_video": 0.997, "feature_spread_video": 0.4},
            "collapsed",
            "video teacher: targets almost uniform, outputs the same for all clips; "
            + "video student: features almost the same for all clips",
        ),
    ],
)
def test_verdict_of_a_run(ends, word, reason):
    verdict = collapse.Verdict(None, readings(steps(**ends)))
    assert verdict.word == word
    assert verdict.sentence == f"{word}: {reason}"


def test_the_same_entropy_is_judged_by_the_number_of_logits():
    table = steps(teacher_entropy_video=0.995)
    assert collapse.Verdict(None, readings(table)).word == "collapsed"
    assert collapse.Verdict(None, readings(table, 4 * K)).word == "healthy"


def test_a_run_that_logs_nothing_is_not_called_healthy():
    verdict = collapse.Verdict(None, readings(steps().iloc[:0]))
    assert verdict.sentence == "nothing to judge: this row logs no indicator"


RECORDED = np.load(Path(__file__).parents[1] / "training" / "collapse_curves.npz")
TOTAL, LOGITS = 675, 128


def recorded(row, seed):
    """Rows of the first quarter of a run of the embedded benchmark (params.yaml), kept in half precision."""
    table = pd.DataFrame(RECORDED[row][seed].astype(float), columns=RECORDED["columns"])
    return table.assign(step=table.index).to_dict("records")


@pytest.mark.parametrize("seed", range(10))
def test_distillation_alone_raises_an_alarm_by_a_fifth_of_the_steps_and_xkd_none(seed):
    first = alarms(recorded("ae_kd", seed), OWN_COLUMNS, LOGITS, TOTAL)[0]
    assert 0.1 * TOTAL < first.step <= 0.2 * TOTAL
    assert first.about in {("collapsing", "video teacher"), ("collapsing", "audio teacher")}
    assert alarms(recorded("xkd", seed), OWN_COLUMNS, LOGITS, TOTAL) == []


def rows_of(table):
    return table.assign(step=table.index).to_dict("records")


@pytest.mark.parametrize(
    ("ends", "about", "step"),
    [
        ({}, None, None),
        ({"teacher_entropy_audio": 0.995}, ("collapsed", "audio teacher"), 55),
        ({"feature_spread_audio": 0.05}, ("collapsed", "audio student"), 55),
        ({"centre_norm_video": 0.98, "teacher_entropy_video": 0.95}, None, None),
    ],
)
def test_the_rule_of_the_report_is_an_alarm_as_soon_as_five_per_cent_of_the_steps_are_beyond_it(ends, about, step):
    """From step 50 of 100 on; "suspect" is none, and the early threshold does not count any more."""
    found = alarms(rows_of(steps(**ends)), OWN_COLUMNS, K, 100)
    assert [(one.about, one.step) for one in found] == ([(about, step)] if about else [])


def test_networks_that_have_hardly_moved_raise_no_alarm():
    alike = pd.DataFrame({"centre_norm_video": np.full(100, math.sqrt(K))})
    alike.loc[9:, "centre_norm_video"] = 0.5 * math.sqrt(K)
    assert alarms(rows_of(alike), OWN_COLUMNS, K, 100) == []


def test_every_run_has_one_line(project):
    table = collapse.verdict_table(collect(project.params))
    assert [row[:2] for row in table.rows] == [
        [name, str(seed)] for name in project.values["ablations"] for seed in (0, 1, 2)
    ]
    lines = {row[0]: row[2] for row in table.rows}
    assert lines["random_init"].startswith("nothing to judge")
    assert ": " in lines["xkd"]
