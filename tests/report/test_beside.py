"""results/paper-comparison.md, and the paper's figures beside ours: which stand together, and which never do."""

import csv
import json
import statistics
from pathlib import Path

import pytest
from invented import SEEDS
from run_folders import seal

from xkd.report import beside
from xkd.report.collect import collect

KEYS = ("table", "method", "pretraining", "task", "protocol", "modality", "metric", "percent")
SETS = {
    "ucf_one": {"kind": "ucf101"},
    "ucf_large": {"kind": "ucf101", "size": 256},
    "hmdb": {"kind": "hmdb51"},
    "esc": {"kind": "esc50"},
    "fsd": {"kind": "fsd50k"},
    "sounds": {"kind": "kinetics_sound"},
    "ucf101": {"kind": "folder", "source": "mine"},  # the user's own, whatever it is called
}
TASKS = {
    "ucf_svm": {"protocol": "svm", "dataset": "ucf_one", "folds": ["1", "2", "3"], "modalities": ["video"]},
    "ucf_tuned": {"protocol": "finetune", "dataset": "ucf_large", "folds": ["1", "2", "3"], "modalities": ["video"]},
    "hmdb_layer": {"protocol": "layer", "dataset": "hmdb", "modalities": ["video"]},
    "esc_svm": {"protocol": "svm", "dataset": "esc", "folds": ["1", "2", "3", "4", "5"], "modalities": ["audio"]},
    "fsd_layer": {"protocol": "layer", "dataset": "fsd", "modalities": ["audio"]},
    "ks_svm": {"protocol": "svm", "dataset": "sounds"},
    "ks_found": {"protocol": "retrieval", "dataset": "sounds"},
    "mine": {"protocol": "svm", "dataset": "ucf101", "modalities": ["video"]},
}
MODALITIES = {"ks_svm": ("video", "audio", "both"), "ks_found": ("video", "audio")}
ROWS = ("xkd", "ae", "recon_video", "no_refinement", "random_init")
PAPER_METHODS = {"xkd": "xkd", "ae": "ae", "recon_video": "recon_video", "no_refinement": "xkd_no_refinement"}


def known() -> list[dict[str, str]]:
    """The paper's figures, read without the code under test."""
    with (Path(beside.__file__).parent / "paper_results.csv").open() as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """Rows of each table of the page by the heading above it."""
    found = {}
    for part in text.split("\n## ")[1:]:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert {len(row) for row in cells} == {len(cells[0])}
        found[part.splitlines()[0]] = [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]
    return found


def page(project) -> dict[str, list[dict[str, str]]]:
    return tables(beside.paper_page(collect(project.params)))


def figure(project, table: str, method: str, task: str, **more: str) -> dict[str, str]:
    """The only row of one table of the paper with these cells."""
    rows = next(rows for title, rows in page(project).items() if title.startswith(f"Table `{table}`"))
    wanted = {"method": method, "data set": task, "protocol": "linear", "pretrained on": "kinetics400"}
    wanted |= {key.replace("_", " "): value for key, value in more.items()}
    (row,) = (row for row in rows if all(row[key] == value for key, value in wanted.items()))
    return row


def percent(row: str, task: str, modality: str, seed: int) -> float:
    """A figure that no other row, task or modality has."""
    return 20 + 8 * ROWS.index(row) + list(TASKS).index(task) / 2 + len(modality) / 8 + seed / 16


def write_scores(project, task: str, **changes) -> None:
    metric = {"fsd_layer": "map", "ks_found": "recall1"}.get(task, "top1")
    for row in ROWS:
        for seed in SEEDS:
            names = [
                f"student.{m}.{TASKS[task]['protocol']}" for m in MODALITIES.get(task, TASKS[task].get("modalities"))
            ]
            if row == "recon_video":
                names = [name for name in names if ".video." in name]
            values = {f"{name}.{metric}": percent(row, task, name.split(".")[1], seed) for name in names}
            clips = {
                "train": 30,
                "test": 9,
                "listed_train": 30,
                "listed_test": 9,
                "left_out": {"train": {}, "test": {}},
            }
            folds = TASKS[task].get("folds", [])
            scores = {
                "dataset": TASKS[task]["dataset"],
                "task": task,
                "protocol": TASKS[task]["protocol"],
                "folds": {fold: {"clips": clips} for fold in folds},
                "manifest": f"hash-of-{TASKS[task]['dataset']}",
                "clips": clips,
                "items": {},
                "metrics": values,
                "encoders": json.loads(project.scores_file(row, seed).read_text())["encoders"],
                "files": {},
                "chance": dict.fromkeys(names, 3.5),
                "notes": [],
                **changes,
            }
            project.scores_file(row, seed, task).write_text(json.dumps(scores))


@pytest.fixture
def kinetics(project):
    """Rows pretrained on Kinetics400, with tasks on sets of the paper and on one that only has the name of one."""
    project.values["datasets"] |= {name: dict(entry) for name, entry in SETS.items()}
    project.values["datasets"]["digits"] = {"kind": "kinetics400"}
    project.values["tasks"] |= {name: dict(entry) for name, entry in TASKS.items()}
    for task in TASKS:
        write_scores(project, task)
    return project


def test_the_page_holds_every_figure_of_the_paper_in_its_own_table(project, kinetics):
    shown = [
        (title.split("`")[1], *row.values())
        for title, rows in page(kinetics).items()
        if title.startswith("Table")
        for row in rows
    ]
    assert [row[:8] for row in shown] == [
        tuple(f"{float(r[k]):.1f}" if k == "percent" else r[k] for k in KEYS) for r in known()
    ]


def test_ours_stand_beside_the_same_table_protocol_metric_and_pretraining_only(kinetics):
    """Each cell of ours is computed anew from what the evaluations wrote, from the cells of the paper in its row."""
    kinds = {name: entry["kind"].replace("_", "-") for name, entry in kinetics.values["datasets"].items()}
    probes = {"linear": ("linear", "svm", "layer"), "finetune": ("finetune",)}
    compared = 0
    for title, rows in page(kinetics).items():
        for row in rows if title.startswith("Table") else []:
            wanted = []
            for name, method in PAPER_METHODS.items():
                for task, entry in kinetics.values["tasks"].items():
                    modality = {"audio+video": "both"}.get(row["modality"], row["modality"])
                    paths = [kinetics.scores_file(name, seed, task) for seed in SEEDS]
                    if not paths[0].exists() or kinds[entry.get("dataset", "digits")] != row["data set"]:
                        continue
                    if method != row["method"] or entry["protocol"] not in probes[row["protocol"]]:
                        continue
                    metrics = [json.loads(path.read_text())["metrics"] for path in paths]
                    for owner in ("student", "teacher"):
                        values = [one.get(f"{owner}.{modality}.{entry['protocol']}.{row['metric']}") for one in metrics]
                        if values[0] is not None:
                            mean, sd = statistics.mean(values), statistics.stdev(values)
                            wanted.append(f"`{name}`, `{task}`, {owner}: {mean:.1f} ± {sd:.1f} (n 3)")
            if row["pretrained on"] != "kinetics400" or row["method"] not in PAPER_METHODS.values():
                wanted = []
            cells = row.get("here", "").split("<br>")
            assert [cell for cell in cells if cell.startswith("`")] == wanted, row
            compared += len(wanted)
    assert compared > 25


def test_figures_of_one_method_in_several_tables_are_not_mixed(kinetics):
    for table, ucf in (("ablation-losses", "84.7"), ("ablation-refinement", "82.6"), ("video", "83.8")):
        row = figure(kinetics, table, "xkd", "ucf101")
        assert row["paper"] == ucf
        assert row["here"].startswith("`xkd`, `ucf_svm`, student: ")
    assert figure(kinetics, "video", "xkd", "kinetics400")["paper"] == "51.4"
    assert figure(kinetics, "ablation-losses", "xkd", "kinetics400")["paper"] == "46.4"
    assert figure(kinetics, "ablation-losses", "ae", "ucf101")["here"].startswith("`ae`, `ucf_svm`")


def test_rows_pretrained_on_other_data_stay_empty_and_say_so(kinetics):
    row = figure(kinetics, "video", "xkd", "ucf101", pretrained_on="audioset")
    assert row["paper"] == "88.4"
    assert row["here"] == "pretrained here on `digits`"
    assert figure(kinetics, "video", "avid", "ucf101")["here"] == "–"
    assert figure(kinetics, "video", "xkd_mas", "ucf101")["here"] == "–", "no such row"
    assert (
        figure(kinetics, "audio", "xkd", "esc50", protocol="finetune")["here"]
        == "no top1 of audio on esc50 by finetune"
    )


def test_both_modalities_of_kinetics_sound_stand_beside_audio_and_video(kinetics):
    row = figure(kinetics, "audio-video", "xkd", "kinetics-sound", modality="audio+video")
    value = statistics.mean(percent("xkd", "ks_svm", "both", seed) for seed in SEEDS)
    assert row["paper"] == "81.2"
    assert f"student: {value:.1f} ±" in row["here"]


def test_what_differs_from_the_papers_protocol_is_said(kinetics):
    assert figure(kinetics, "video", "xkd", "ucf101")["what differs here"] == "–"
    layer = figure(kinetics, "video", "xkd", "hmdb51")
    assert "protocol layer, in the paper svm" in layer["what differs here"]
    assert "fold 1 alone, of the folds 1, 2, 3" in layer["what differs here"]
    clips = {"train": 2635, "test": 1115, "listed_train": 3570, "listed_test": 1530}
    write_scores(kinetics, "hmdb_layer", clips=clips | {"left_out": {"test": {"too short": 415}, "train": {}}})
    incomplete = "**not the official protocol**: 1,115 of 1,530 official test clips (left out: 415 too short)"
    row = figure(kinetics, "video", "xkd", "hmdb51")
    assert incomplete in row["what differs here"]
    assert row["test clips"] == "1,115 of 1,530"
    assert "2,635 of 3,570 official training clips" in row["what differs here"]
    kinetics.values["datasets"]["ucf_one"]["limit"] = 5
    kinetics.values["datasets"]["digits"]["limit"] = 7
    limited = figure(kinetics, "video", "xkd", "ucf101")["what differs here"]
    assert "**not the official protocol**: at most 5 clips of each class" in limited
    assert "pretrained on at most 7 clips of each class" in limited


def test_other_pretraining_is_labelled_and_never_beside_a_figure(kinetics):
    kinetics.values["datasets"]["digits"]["kind"] = "talking_digits"
    found = page(kinetics)
    assert not any("here" in row for title, rows in found.items() for row in rows if title.startswith("Table"))
    others = found["Our other figures on data sets of the paper"]
    assert {row["pretrained on"] for row in others} == {"`digits`", "nothing (mode none)"}
    assert {row["task"] for row in others} == {f"`{name}`" for name in TASKS} - {"`mine`", "`ks_found`"}


def test_without_a_data_set_of_the_paper_the_page_says_that_nothing_compares(project):
    text = beside.paper_page(collect(project.params))
    assert text.count("No figure of ours measures what one of these does: pretrained here on `digits`.") == 5
    assert "Our other figures" not in text
    assert len(tables(text)) == 6, "and the claims"


def test_given_encoders_are_compared_by_where_they_come_from(kinetics):
    """The released ones stand beside figures of their own pretraining set, as teachers, whatever the settings say."""
    kinetics.values["datasets"]["digits"]["kind"] = "manifest"
    for row, origin in (
        ("xkd", "released file XKD_pretext_audioset_ep799vid_teacher.pth.tar"),
        ("ae", "trained with xkd on digits: ablation ae, seed 0"),
    ):
        kinetics.values["ablations"][row]["changes"] = {"training": {"mode": "none", "weights": ["somewhere"]}}
        for seed in SEEDS:
            path = kinetics.run_folder(row, seed) / "metrics.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"given": {"video": origin}}))
            seal(path.parent)
            path = kinetics.scores_file(row, seed, "ucf_svm")
            path.write_text(path.read_text().replace("student", "teacher"))
    for task in kinetics.values["tasks"].values():
        task["ablations"] = ["xkd", "ae"]
    row = figure(kinetics, "video", "xkd", "ucf101", pretrained_on="audioset")
    value = statistics.mean(percent("xkd", "ucf_svm", "video", seed) for seed in SEEDS)
    assert row["here"].startswith(f"`xkd`, `ucf_svm`, teacher: {value:.1f} ±")
    assert figure(kinetics, "video", "xkd", "ucf101")["here"].startswith(
        "pretrained here on released file XKD_pretext_audio"
    )
    assert "PAPER, pretrained on audioset: ucf101 video linear" in kinetics.markdown()
    kinetics.values["ablations"]["xkd"]["changes"]["training"] = {"weights": ["somewhere"]}
    text = beside.paper_page(collect(kinetics.params))
    assert "`xkd`, `ucf_svm`, teacher" not in text, "trained on from there, on other data: comparable with nothing"
    assert "teacher.pth.tar, then `digits`" in text


def test_notes_explain_tasks_that_are_not_called_after_their_protocol(project):
    project.values["datasets"]["films"] = {"kind": "ucf101"}
    project.values["tasks"]["ucf"] = {"protocol": "svm", "dataset": "films", "folds": ["1", "2"], "ablations": []}
    notes = [line for line in project.markdown().splitlines() if line.startswith("- Task")]
    assert notes == ["- Task `ucf`: protocol svm on data set `films`, mean over the folds 1, 2."]


def test_claims_are_judged_task_by_task_where_ours_measure_the_same(kinetics):
    claims = page(kinetics)["The orderings that the paper claims, and ours"]
    video = [row for row in claims if row["as an ordering"] == "xkd above ae, video"]
    assert {row["here"].rpartition(".")[2]: row["PAPER: points"] for row in video} == {
        "ucf_svm": "ucf101 +8.4",
        "hmdb_layer": "hmdb51 +8.1",
        "ks_svm": "kinetics-sound +13.8",
        "linear": "kinetics400 +14.2",
    }
    both = next(row for row in claims if row["as an ordering"] == "xkd above ae, audio+video")
    assert both["here"] == "xkd, ae: student.both.ks_svm"
    refinement = next(row for row in claims if row["as an ordering"] == "xkd above xkd_no_refinement, audio")
    assert refinement["here: points"].startswith("-24.0"), "rows stand 8 points apart"
    assert refinement["verdict"] == "cannot tell", "by the same for all seeds"
