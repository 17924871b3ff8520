"""The orderings that the paper claims, judged on planted tables whose verdicts are known."""

import csv
import json
import math
import shutil
from pathlib import Path

import matplotlib.colors
import pytest
from invented import SEEDS
from run_folders import seal

from xkd.report import agreement
from xkd.report.agreement_plot import COLOURS, agreement_plot
from xkd.report.collect import collect
from xkd.report.paper import Measure, PaperResults
from xkd.report.style import plt

FIGURES = Path(agreement.__file__).parent / "paper_results.csv"


def plant(project, modality: str, **rows: tuple[float, ...]) -> None:
    """Sets the students' linear probes of rows, seed by seed."""
    for name, values in rows.items():
        for seed, value in zip(SEEDS, values, strict=True):
            path = project.scores_file(name, seed)
            scores = json.loads(path.read_text())
            scores["metrics"][f"student.{modality}.linear.top1"] = value
            path.write_text(json.dumps(scores))


def copy_row(project, source: str, row: str, dataset: str, **entry: str) -> None:
    """Adds a row with the files of another one, pretrained on another data set."""
    project.values["ablations"][row] = project.values["ablations"][source] | {"dataset": dataset} | entry
    for seed in SEEDS:
        folder = project.root / "runs" / dataset / row / f"seed{seed}"
        shutil.copytree(project.run_folder(source, seed), folder)
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps(metrics | {"ablation": row, "manifest": f"of-{dataset}"}))
        seal(folder)
        shutil.copytree(project.scores_file(source, seed).parent, project.scores_file(row, seed).parent)


def found(project) -> dict[str, agreement.Finding]:
    """What the table says of each claim of the paper, by the claim in words."""
    return {str(one.claim): one for one in agreement.findings(collect(project.params))}


def planted(project) -> None:
    plant(project, "video", ae=(50, 51, 52), xkd=(59.9, 61, 62.1), recon_video=(50.1, 50.9, 52))
    plant(project, "video", no_refinement=(65.0, 66, 67.1))
    plant(project, "audio", ae=(50, 51, 52), xkd=(50.8, 50.1, 53.1), no_refinement=(49, 50, 51))


def test_every_outcome_is_found_where_it_was_planted(project):
    planted(project)
    words = {name: one.word for name, one in found(project).items()}
    measured = {name: word for name, word in words.items() if word != "not measured"}
    assert measured == {
        "xkd above ae, video": "agrees",  # by 10 points
        "xkd above ae, audio": "cannot tell",  # 0.8, -0.9 and 1.1
        "ae as good as recon_video, video": "agrees",  # within 0.1, the paper within 1.5
        "xkd above xkd_no_refinement, video": "disagrees",  # 5 points below
        "xkd above xkd_no_refinement, audio": "cannot tell",  # 1.8, 0.1 and 2.1
    }
    assert len(words) == len(PaperResults().claims)


def test_p_values_are_corrected_over_all_claims_that_the_table_can_judge(project):
    plant(project, "video", ae=(50, 51, 52), xkd=(53, 55.5, 57.2), no_refinement=(53.5, 55, 57))
    differences = (3, 4.5, 5.2)
    mean = sum(differences) / 3
    variance = sum((one - mean) ** 2 for one in differences) / 2
    t = mean / math.sqrt(variance / 3)
    p = (1 - t / math.sqrt(2 + t * t)) / 2  # Student's t with two degrees of freedom, one-sided
    one = found(project)["xkd above ae, video"]
    assert (one.word, one.p) == ("cannot tell", pytest.approx(5 * p))
    project.values["ablations"] = {name: project.values["ablations"][name] for name in ("xkd", "ae")}
    one = found(project)["xkd above ae, video"]
    assert (one.word, one.p) == ("agrees", pytest.approx(2 * p)), "sound can be judged, too"


def test_claims_are_what_the_papers_figures_show():
    """Computed from the file, without the code under test."""
    with FIGURES.open() as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    keys = ("table", "method", "pretraining", "task", "protocol", "modality")
    percent = {tuple(row[key] for key in keys): float(row["percent"]) for row in rows}
    paper = PaperResults()
    assert {claim.table for claim in paper.claims} == {row["table"] for row in rows}
    for claim in paper.claims:
        sizes = paper.sizes(claim)
        for measure, size in sizes.items():
            row, than = (
                percent.get((claim.table, method, data, measure.task, measure.protocol, measure.modality))
                for method, data in (
                    (claim.row, measure.pretraining),
                    (claim.than, claim.than_pretraining or measure.pretraining),
                )
            )
            assert claim.points.get(measure.task) == size if than is None else size == pytest.approx(row - than)
        assert sizes
        assert claim.expects == "equal" or sum(sizes.values()) > 0, str(claim)
    video = next(paper.sizes(claim) for claim in paper.claims if str(claim) == "xkd above ae, video")
    abstract = [video[Measure("kinetics400", task, "linear", "video", "top1")] for task in ("hmdb51", "kinetics400")]
    assert [round(size) for size in abstract] == [8, 14]


def test_rows_are_compared_with_rows_pretrained_on_the_same_data(project):
    planted(project)
    project.values["datasets"]["unpaired"] = {"kind": "talking_digits"}
    copy_row(project, "ae", "ae_unpaired", "unpaired")
    copy_row(project, "xkd", "xkd_unpaired", "unpaired")
    one = [one for one in agreement.findings(collect(project.params)) if str(one.claim) == "xkd above ae, video"]
    assert [(f.ours.row, f.ours.than) for f in one] == [("xkd", "ae"), ("xkd_unpaired", "ae_unpaired")]
    del project.values["ablations"]["xkd_unpaired"]
    project.values["ablations"]["ae"].pop("paper")
    assert found(project)["xkd above ae, video"].word == "not measured"


def test_more_data_for_pretraining_is_compared_where_both_data_sets_are_the_papers(project):
    project.values["datasets"] = {"digits": {"kind": "kinetics400"}, "large": {"kind": "audioset"}}
    copy_row(project, "xkd", "xkd_large", "large")
    plant(project, "video", xkd_large=(40, 43, 43.5))
    one = found(project)["xkd on audioset above xkd on kinetics400, video"]
    assert (one.ours.row, one.ours.than, one.same) == ("xkd_large", "xkd", True)
    assert {agreement.measured(measure): round(size, 1) for measure, size in one.sizes.items()} in (
        {"kinetics400 audioset": 5.1},
        {"kinetics400 finetune audioset": 2.5},
    )


def test_the_same_measure_is_compared_with_that_of_the_paper_alone(project):
    project.values["datasets"]["digits"]["kind"] = "kinetics400"
    one = found(project)["xkd above ae, video"]
    assert one.same
    assert {measure.task: round(size, 1) for measure, size in one.sizes.items()} == {"kinetics400": 14.2}
    assert found(project)["xkd above ae, audio"].word == "not measured", "the paper has no sound of Kinetics400"


def test_a_task_on_other_clips_of_the_tables_kind_judges_claims(project):
    planted(project)
    before = {name: one.word for name, one in found(project).items()}
    kind = project.values["datasets"]["digits"]["kind"]
    project.values["datasets"]["labelled"] = {"kind": kind}
    for name in project.values["tasks"]:
        project.values["tasks"][name]["dataset"] = "labelled"
    for path in (project.root / "evals").rglob("*.json"):
        scores = json.loads(path.read_text())
        if "dataset" in scores:
            path.write_text(json.dumps(scores | {"dataset": "labelled", "manifest": "of-labelled"}))
    assert {name: one.word for name, one in found(project).items()} == before


def test_own_clips_judge_no_claim(project):
    project.values["datasets"]["digits"] = {"kind": "folder", "source": "mine"}
    assert {one.word for one in found(project).values()} == {"not measured"}
    assert "your own" in agreement.note(collect(project.params), agreement.findings(collect(project.params)))


def test_the_file_holds_what_the_page_shows(report):
    with (report / "paper-agreement.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == len(PaperResults().claims)
    (first,) = (row for row in rows if (row["row"], row["than"], row["modality"]) == ("xkd", "ae", "video"))
    assert first["paper_points"] == "8.4;8.1;13.8;14.2"
    assert (first["difference"], first["seeds"], first["our_column"]) == ("5.0", "3", "student.video.linear")
    text = (report / "paper-comparison.md").read_text()
    start = text.index("## The orderings that the paper claims")
    assert start < text.index("## Table `ablation-losses`")
    words = [row["verdict"] for row in rows]
    counts = f"agrees {words.count('agrees')}, disagrees {words.count('disagrees')}, cannot tell"
    assert counts in text[start:]
    assert counts in (report / "report.html").read_text()


def test_figure(project):
    planted(project)
    figure = agreement_plot(collect(project.params))
    axis = figure.axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    place = labels.index("xkd above xkd_no_refinement, video")
    marks = {line.get_marker(): line for line in axis.lines if list(line.get_ydata())[:1] == [place]}
    assert [round(x, 1) for x in marks["D"].get_xdata()] == [2.9, 3.3]
    (ours,) = marks["X"].get_xdata()
    assert ours == pytest.approx(-5.0, abs=0.04)
    assert matplotlib.colors.same_color(marks["X"].get_color(), COLOURS["disagrees"])
    words = figure.get_label()
    assert "disagrees: xkd above xkd_no_refinement, video." in words
    assert "agrees: xkd above ae, video; ae as good as recon_video, video." in words
    plt.close(figure)
