"""The paper's preset in miniature, from archives on a server to report.html: every data set, task and fold of it.

Counts are those of the archives that were built, figures those of scikit-learn from the files of scores.
"""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import yaml
from file_server import serving
from official import without_checksums
from paper_project import KINDS, PRESET, ROWS, PaperProject, sites
from sklearn.metrics import accuracy_score, average_precision_score

from xkd.report.paper import PaperResults

TASKS = {name: task for name, task in yaml.safe_load(PRESET.read_text())["tasks"].items() if task}
JUDGED = [(task, row) for task in TASKS for row in ROWS if row == "xkd" or TASKS[task]["protocol"] != "finetune"]
# Clips that training and test have in each fold: the lists that official.py writes, less a vanished video of Kinetics.
CLIPS = {
    "ucf101": [(18, 6)] * 3,
    "hmdb51": [(9, 6)] * 3,
    "esc50": [(24, 6)] * 5,
    "fsd50k": [(20, 8)],
    "kinetics400": [(11, 12)],
    "kinetics_sound": [(7, 8)],
}
OWNERS = {"xkd": {"student", "teacher"}, "ae": {"student"}}
PAPER_NAMES = {"ucf101": "ucf101", "hmdb51": "hmdb51", "esc50": "esc50", "fsd50k": "fsd50k"}
PAPER_NAMES |= {"kinetics400": "kinetics400", "kinetics_sound": "kinetics-sound"}


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The project after all its jobs."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "sites").mkdir()
    with pytest.MonkeyPatch.context() as patch, serving(folder / "sites") as (address, _):
        without_checksums(patch)
        assert set(sites(folder / "sites")) == set(KINDS)
        project = PaperProject(folder / "project", address)
        project.run_here()
    return project


def data_set(task: str) -> str:
    """The kind of a task's data set; pretraining is on Kinetics400."""
    return TASKS[task].get("dataset", "kinetics400").removesuffix("_256")


def results(paper, row, task):
    """Figures, scores and predictions of an evaluation."""
    path = paper.root / "evals" / "kinetics400" / row / "seed0" / f"{task}.json"
    scores = pd.read_parquet(path.with_suffix(".scores.parquet"))
    predictions = pd.read_csv(path.with_suffix(".predictions.csv"), dtype=str)
    return json.loads(path.read_text()), scores, predictions


def of_folds(table, task):
    """The rows of each fold of the task."""
    folds = TASKS[task].get("folds")
    return [table[table["fold"] == fold] for fold in folds] if folds else [table]


def test_the_plan_has_each_job_of_the_paper_once(paper):
    verbs = Counter(job[0] for job in paper.jobs)
    used = {"kinetics400", *(task.get("dataset", "kinetics400") for task in TASKS.values())}
    assert len(TASKS) == 12
    wanted = {"download": len(used), "prepare": len(used), "pretrain": len(ROWS), "evaluate": len(JUDGED), "table": 1}
    assert {verb: verbs[verb] for verb in wanted} == wanted
    assert len({" ".join(job) for job in paper.jobs}) == len(paper.jobs)


@pytest.mark.parametrize(("task", "row"), JUDGED)
def test_every_fold_trains_and_tests_on_its_clips(paper, task, row):
    expected = CLIPS[data_set(task)]
    folds = TASKS[task].get("folds") or [None]
    assert len(expected) == len(folds)
    said, scores, predictions = results(paper, row, task)
    parts = said["folds"] if len(folds) > 1 else {None: said}
    assert list(parts) == folds
    for fold, (train, test) in zip(folds, expected, strict=True):
        assert (parts[fold]["clips"]["train"], parts[fold]["clips"]["test"]) == (train, test)
    for table, (_, test) in zip(of_folds(predictions, task), expected, strict=True):
        assert table["id"].nunique() == len(table) == test
    for table, (_, test) in zip(of_folds(scores, task), expected, strict=True):
        assert set(table.groupby("method")["id"].nunique()) == {test}
    assert len(predictions) == sum(test for _, test in expected)


@pytest.mark.parametrize("task", [name for name in TASKS if data_set(name) in ("ucf101", "hmdb51", "esc50")])
def test_folds_are_the_official_ones(paper, task):
    """The names that official.py gives say in which fold a clip is tested."""
    folds = of_folds(results(paper, "xkd", task)[2], task)
    for number, table in enumerate(folds, start=1):
        if data_set(task) == "ucf101":
            assert set(table["id"].str.extract(r"_g(\d\d)_")[0]) == {f"{number:02}"}
            assert (table["id"].str.split("_").str[1] == table["label"]).all()
        elif data_set(task) == "esc50":
            assert set(table["id"].str[0]) == {str(number)}
            assert (table["id"].str[-1].map({"0": "dog", "1": "rain", "2": "door_wood_knock"}) == table["label"]).all()
        else:
            assert {(int(name.rsplit("_", 1)[1]) + number) % 7 for name in table["id"]} == {3, 4}
            assert (table["id"].str.split("/").str[0] == table["label"]).all()


@pytest.mark.parametrize(("task", "row"), [one for one in JUDGED if TASKS[one[0]]["protocol"] != "retrieval"])
def test_figures_are_those_of_scikit_learn(paper, task, row):
    said, scores, predictions = results(paper, row, task)
    protocol, chosen = TASKS[task]["protocol"], TASKS[task].get("modalities", ["video", "audio"])
    owners = {"student"} if protocol == "finetune" else OWNERS[row]
    judged = [*chosen, "both"] if len(chosen) == 2 else chosen
    assert set(scores["method"]) == {f"{owner}.{m}.{protocol}" for owner in owners for m in judged}
    for method, table in scores.groupby("method"):
        figures = {"map": [], "top1": []}
        for part, guesses in zip(of_folds(table, task), of_folds(predictions, task), strict=True):
            columns = [name for name in part if name.startswith("score.")]
            values = part[columns].to_numpy(float)
            names = np.array([name.removeprefix("score.") for name in columns])
            truth = np.array([np.isin(names, label.split(";")) for label in part["label"]])
            figures["map"].append(100 * average_precision_score(truth[:, truth.any(0)], values[:, truth.any(0)]))
            assert (names[values.argmax(1)] == guesses[method].to_numpy()).all()
            figures["top1"].append(100 * accuracy_score(guesses["label"], guesses[method]))
        for metric in ("map",) if data_set(task) == "fsd50k" else ("map", "top1"):
            mean, spread = np.mean(figures[metric]), np.std(figures[metric], ddof=len(figures[metric]) > 1)
            assert said["metrics"][f"{method}.{metric}"] == pytest.approx(mean, abs=1e-3)
            if "spread" in said:
                assert said["spread"][f"{method}.{metric}"] == pytest.approx(spread, abs=1e-3)
        assert (f"{method}.top1" in said["metrics"]) == (data_set(task) != "fsd50k")
        assert ("spread" in said) == bool(TASKS[task].get("folds"))


@pytest.mark.parametrize("row", ROWS)
def test_retrieval_is_that_of_its_ranks(paper, row):
    said, scores, predictions = results(paper, row, "kinetics_sound_retrieval")
    for method, table in scores.groupby("method"):
        assert table["rank"].between(1, len(table)).all()
        assert said["metrics"][f"{method}.recall1"] == pytest.approx(100 * (table["rank"] == 1).mean(), abs=1e-3)
        found = predictions[method].to_numpy() == predictions["id"].to_numpy()
        assert (table["rank"].to_numpy()[found] == 1).all()


def test_the_table_has_every_task_of_every_row(paper):
    table = pd.read_csv(paper.root / "results" / "kinetics400" / "table.csv").set_index("ablation")
    assert set(table.index) == set(ROWS)
    for task, row in JUDGED:
        said, _, predictions = results(paper, row, task)
        metric = {"retrieval": "recall1"}.get(TASKS[task]["protocol"], "map" if data_set(task) == "fsd50k" else "top1")
        for name, value in said["metrics"].items():
            owner, modality, _, measure = name.split(".")
            if measure == metric:
                assert table.loc[row, f"{owner}.{modality}.{task}.mean"] == pytest.approx(value, abs=1e-3)
        assert table.loc[row, f"{task}.tested_clips"] == predictions["id"].nunique()


def test_the_page_beside_the_paper_has_our_figure_wherever_we_measure_the_same(paper):
    """Each figure of the paper for a row of ours stands beside that row's figure, from the task that measures it."""
    page = (paper.root / "results" / "kinetics400" / "paper-comparison.md").read_text()
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    shown = {(*cells[:6], cells[6]): cells[7] for cells in lines if len(cells) == 10}
    ours = {}
    for task, known in TASKS.items():
        protocol = {"svm": "linear", "layer": "linear", "finetune": "finetune"}.get(known["protocol"])
        ours[PAPER_NAMES[data_set(task)], protocol] = task
    beside = set()
    for figure in PaperResults().figures:
        one = figure.measure
        if figure.method not in ROWS or one.pretraining != "kinetics400":
            continue
        key = figure.method, one.pretraining, one.task, one.protocol, one.modality, one.metric, f"{figure.percent:.1f}"
        task, modality = ours[one.task, one.protocol], {"audio+video": "both"}.get(one.modality, one.modality)
        said, _, _ = results(paper, figure.method, task)
        value = said["metrics"][f"student.{modality}.{TASKS[task]['protocol']}.{one.metric}"]
        assert f"`{figure.method}`, `{task}`, student: {value:.1f} (n 1)" in shown[key]
        beside.add(key)
    assert beside == {key for key, cell in shown.items() if "(n 1)" in cell}
    assert len(beside) > 20


def test_the_report_is_whole(paper):
    page = (paper.root / "results" / "kinetics400" / "report.html").read_text()
    assert page.rstrip().endswith("</html>")
    for task in TASKS:
        assert task in page
