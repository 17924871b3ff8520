"""The rule that says in plain words whether a run collapsed."""

import math

import numpy as np
import pandas as pd
import pytest

from xkd.report import collapse
from xkd.report.collect import collect
from xkd.training.objective import OWN_COLUMNS

K = 64


def readings(table, logits=K):
    return collapse.readings(table, OWN_COLUMNS, logits)


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


def test_every_run_has_one_line(project):
    table = collapse.verdict_table(collect(project.params))
    assert [row[:2] for row in table.rows] == [
        [name, str(seed)] for name in project.values["ablations"] for seed in (0, 1, 2)
    ]
    lines = {row[0]: row[2] for row in table.rows}
    assert lines["random_init"].startswith("nothing to judge")
    assert ": " in lines["xkd"]
