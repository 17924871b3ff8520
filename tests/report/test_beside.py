"""results/paper-comparison.md."""

import csv
from pathlib import Path

from xkd.report import beside
from xkd.report.collect import collect


def rows(project) -> dict[tuple, list[str]]:
    """Cells by (task, protocol, modality, metric, pretraining)."""
    lines = beside.comparison(collect(project.params)).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    return {tuple(row[:5]): row[5:] for row in cells}


def test_every_figure_of_the_paper_has_its_row_and_empty_cells_say_why(project):
    found = rows(project)
    assert found["ucf101", "linear", "video", "top1", "kinetics400"][:3] == ["84.7", "81.7", "80.1"]
    assert found["fsd50k", "linear", "audio", "map", "kinetics400"][4] == (
        "no task of data set `fsd50k` with protocol svm or layer or linear in the settings"
    )
    with (Path(beside.__file__).parent / "paper_results.csv").open() as lines:
        known = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert found.keys() == {
        tuple(row[key] for key in ("task", "protocol", "modality", "metric", "pretraining")) for row in known
    }
    others = [row[3] for row in found.values() if row[3] != "–"]
    assert others and not any("xkd" in other or "ae_" in other for other in others)


def test_our_figures_stand_beside_those_of_the_same_data_set(project):
    project.values["datasets"]["digits"]["kind"] = "ucf101"
    found = rows(project)
    here = found["ucf101", "linear", "video", "top1", "kinetics400"][4]
    video = project.table()["student.video.linear.mean"]["xkd"]
    assert f"xkd: student {float(video):.1f} ± " in here and "(n 3)" in here and "teacher" in here
    tuned = found["ucf101", "finetune", "video", "top1", "kinetics400"][4]
    assert tuned.startswith("xkd: student 6")
    project.values["tasks"]["finetune"]["ablations"] = ["ae"]
    assert rows(project)["ucf101", "finetune", "video", "top1", "kinetics400"][4].startswith("no row for XKD")


def test_notes_explain_tasks_that_are_not_called_after_their_protocol(project):
    project.values["datasets"]["films"] = {"kind": "ucf101"}
    project.values["tasks"]["ucf"] = {"protocol": "svm", "dataset": "films", "folds": ["1", "2"], "ablations": []}
    notes = [line for line in project.markdown().splitlines() if line.startswith("- Task")]
    told = (
        "- Task `ucf`: protocol svm on data set `films`, mean over the folds 1, 2; mean average precision where clips"
    )
    assert notes == [f"{told} have several labels."]
