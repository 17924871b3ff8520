"""The presets between the embedded benchmark and the paper, in miniature: all jobs that Snakemake plans, to the table."""

from pathlib import Path

import pandas as pd
import pytest
from engine_project import ROOT
from paper_project import IN_PROCESS, MODEL, VIEWS, PaperProject

from xkd import params

PRESETS = ROOT / "workflow" / "presets"
CLIPS = {"kind": "talking_digits", "train_clips": 24, "test_clips": 12, "shards": {}}


class PresetProject(PaperProject):
    """A preset with tiny networks on embedded clips."""

    def __init__(self, root: Path, preset: str, rows: tuple[str, ...], **changes: dict) -> None:
        every = params.load(PRESETS / f"{preset}.yaml").ablations
        self.changes = {
            "extends": str(PRESETS / f"{preset}.yaml"),
            "dataset": "digits",
            "datasets": {"digits": CLIPS},
            "clips": {"seconds": 1, "size": 32},
            "views": VIEWS,
            "model": MODEL,
            "training": {"epochs": 1, "batch_size": 8, "warmup_epochs": 0, "workers": 0},
            "ablations": dict.fromkeys(set(every) - set(rows)) | IN_PROCESS,
            **changes,
        }
        super().__init__(root, "")

    def write(self, settings: dict) -> None:
        super().write(self.changes)


def table_of(project):
    project.run_here()
    folder = params.load(PRESETS / f"{Path(project.changes['extends']).stem}.yaml").results
    return pd.read_csv(project.root / folder / "table.csv").set_index("ablation")


def test_one_gpu_trains_probes_and_finetunes(tmp_path):
    evaluate = {"finetune": {"epochs": 1, "batch_size": 8}, "linear": {"C": [1.0]}}
    project = PresetProject(tmp_path / "project", "one_gpu", ("xkd", "ae"), evaluate=evaluate)
    verbs = [job[0] for job in project.jobs]
    assert {verb: verbs.count(verb) for verb in verbs} == {
        "download": 1, "prepare": 1, "pack": 1, "pretrain": 2, "features": 2, "evaluate": 4, "table": 1,
    }  # fmt: skip
    table = table_of(project)
    assert set(table.index) == {"xkd", "ae"}
    for column in ("student.video.linear.mean", "student.both.linear.mean", "student.video.finetune.mean"):
        assert table[column].between(0, 100).all()


def test_one_node_judges_encoders_by_the_papers_probes(tmp_path):
    tasks = params.load(PRESETS / "one_node.yaml").tasks
    assert {task.protocol for task in tasks.values()} == {"svm", "layer", "retrieval"}
    shorter = {"layer": {"epochs": 2, "batch_size": 8}, "svm": {"C": [1.0]}, "retrieval": {}}
    here = {
        name: {"dataset": None, "folds": [], "train_clips": 1, "changes": shorter[task.protocol]}
        for name, task in tasks.items()
    }
    table = table_of(PresetProject(tmp_path / "project", "one_node", ("xkd", "ae"), tasks=here))
    assert table.loc["xkd", "student.video.ucf101_svm.mean"] >= 0
    assert all(any(f".{name}." in column for column in table.columns) for name in tasks)


@pytest.mark.parametrize("preset", ["one_gpu", "one_node"])
def test_a_set_of_ones_own_takes_the_lines_that_the_preset_shows(preset, tmp_path):
    """The comment at the head of each preset."""
    lines = [line.removeprefix("#   ") for line in (PRESETS / f"{preset}.yaml").read_text().splitlines()]
    start = next(n for n, line in enumerate(lines) if line.startswith("extends: workflow"))
    own = [line for line in lines[start : start + 6] if not line.startswith(("#", "extends: paper"))]
    text = "\n".join(own).replace("workflow/presets", str(PRESETS))
    (tmp_path / "mine.yaml").write_text(text)
    loaded = params.load(tmp_path / "mine.yaml")
    assert (loaded.dataset, loaded.datasets["mine"].kind) == ("mine", "folder")
    assert loaded.results == "results/mine"
