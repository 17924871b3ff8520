"""A row that is pretrained on a second data set, which has no test clips, through all real stages to the report.

Snakemake plans the jobs, and their commands run in this process one after the other.
"""

import json
from contextlib import chdir

import numpy as np
import pandas as pd
import pytest
from engine_project import Project
from paper_project import PaperProject

from xkd import cli
from xkd.errors import UserError

TEST_CLIPS, OTHER_CLIPS = 10, 20


class OtherDataProject(PaperProject):
    """The miniature with fewer clips; one of two equal rows is pretrained on clips of another seed."""

    def write(self, settings: dict) -> None:
        settings = self.settings(Project.MINIATURE)
        kind = settings["datasets"]["miniature"]["kind"]
        row = settings["ablations"]["xkd"] | {"paper": None}
        changes = {
            "results": "results",
            "seeds": [0],
            "datasets": {
                "miniature": {"kind": kind, "train_clips": 20, "test_clips": TEST_CLIPS},
                "other": {"kind": kind, "train_clips": OTHER_CLIPS, "test_clips": 0, "seed": 5},
            },
            "training": settings["training"] | {"epochs": 1, "batch_size": 10},
            "tasks": {"linear": {"protocol": "linear"}},
            "report": {"baseline": "xkd"},
            "ablations": {"xkd": row, "xkd_other": row | {"dataset": "other"}},
        }
        super(PaperProject, self).write(settings | changes)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = OtherDataProject(tmp_path_factory.mktemp("other") / "project", "")
    made.run_here()
    return made


def manifest(project, dataset):
    return json.loads((project.root / "data" / dataset / "summary.json").read_text())["hash"]


def test_each_row_is_pretrained_on_its_own_clips_and_judged_on_those_of_the_table(project):
    table = pd.read_csv(project.root / "results" / "table.csv").set_index("ablation")
    assert table["dataset"].to_dict() == {"xkd": "miniature", "xkd_other": "other"}
    assert table["manifest"].tolist() == [manifest(project, "miniature"), manifest(project, "other")]
    assert table["manifest"].nunique() == 2
    for row in table.index:
        scores = project.root / "evals" / "miniature" / row / "seed0" / "linear.json"
        said = json.loads(scores.read_text())
        assert (said["dataset"], said["manifest"]) == ("miniature", manifest(project, "miniature"))
        judged = pd.read_csv(scores.with_suffix(".predictions.csv"))["id"]
        assert len(judged) == TEST_CLIPS
        assert judged.str.startswith("test-").all()
    assert table["linear.tested_clips"].tolist() == [TEST_CLIPS] * 2


def test_a_data_set_without_test_clips_shows_training_clips(project):
    run = project.root / "runs" / "other" / "xkd_other" / "seed0"
    with np.load(run / "embeddings.npz") as arrays:
        assert len(arrays["ids"]) == OTHER_CLIPS
        assert all(name.startswith("train-") for name in arrays["ids"])
    with np.load(run / "samples.npz") as arrays:
        assert len(arrays["video_true"]) == 8


def test_the_report_says_where_a_row_was_pretrained(project):
    text = (project.root / "results" / "table.md").read_text()
    assert "| xkd_other | other | " in text
    assert f"Pretrained on `other` instead (manifest `{manifest(project, 'other')}`, {OTHER_CLIPS} training" in text
    assert '<th scope="col">pretrained on</th>' in (project.root / "results" / "report.html").read_text()


def test_clips_of_another_data_set_are_refused(project):
    command = ["--manifest", "data/miniature/manifest.csv", "--ablation", "xkd_other", "--seed", "0", "--out", "x"]
    with chdir(project.root), pytest.raises(UserError, match="clips of 'miniature', but row xkd_other .* on 'other'"):
        cli.cli.main(["pretrain", *command], standalone_mode=False)
