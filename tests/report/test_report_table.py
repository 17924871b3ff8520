import json
import math
import shutil

import numpy as np
import pytest
from invented import ABLATIONS, SEEDS, VIDEO
from run_folders import seal

from xkd.errors import UserError
from xkd.report.arrays import shown_run
from xkd.report.collect import collect
from xkd.report.cross_modal import shared_space_table
from xkd.report.statistics import compare

FIGURES = (
    *("ablations", "differences", "losses", "diagnostics", "alignment", "reconstructions", "refinement"),
    *("embeddings", "confusion", "contact-sheet", "paper-agreement"),
)


def t_test_of_three(differences):
    """Mean, t and two-sided p of three differences, by the closed form of Student's t with two degrees of freedom."""
    mean = sum(differences) / 3
    variance = sum((d - mean) ** 2 for d in differences) / 2
    t = mean / math.sqrt(variance / 3)
    return mean, 1 - abs(t) / math.sqrt(2 + t * t)


def contents(folder):
    """The files of a report; the journal beside them has random names in it."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".xkd-")]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_paired_comparison_matches_closed_form():
    one = compare([30.0, 33.0, 33.0], [26.0, 27.0, 28.0])
    mean, p = t_test_of_three([4, 6, 5])
    assert one.mean == pytest.approx(32)
    assert one.sd == pytest.approx(math.sqrt((4 + 1 + 1) / 2))
    assert one.difference == pytest.approx(mean)
    assert one.p == pytest.approx(p)


def test_pairing_matters():
    paired = compare([10.0, 20.0, 30.5], [9.0, 19.0, 29.0])
    shuffled = compare([10.0, 20.0, 30.5], [29.0, 9.0, 19.0])
    assert paired.difference == pytest.approx(shuffled.difference)
    assert paired.p < 0.05 < shuffled.p


@pytest.mark.parametrize(
    ("values", "reference"),
    [([1.0], [2.0]), ([1.0, 2.0], [1.0, 2.0]), ([1.1, 2.2, 3.3], [0.1, 1.2, 2.3]), ([1.0, 2.0], None)],
    ids=["one seed", "no difference", "constant difference", "no reference"],
)
def test_p_is_empty_where_there_is_no_spread_to_test_against(values, reference):
    assert compare(values, reference).p is None


def test_one_seed_has_no_deviation():
    assert compare([1.0], None).sd is None


def test_interval_holds_zero_exactly_where_p_says_so():
    """The interval belongs to the test: its level is 95 %, so it reaches zero where p is 0.05."""
    differences = np.array([1.0, 2.0, 4.0])
    at_the_edge = differences - differences.mean() + 4.302653 * differences.std(ddof=1) / math.sqrt(3)
    one = compare(list(10 + at_the_edge), [10.0, 10.0, 10.0])
    assert one.p == pytest.approx(0.05, abs=1e-5)
    assert one.interval == (pytest.approx(0, abs=1e-5), pytest.approx(2 * one.difference))


def test_rows_follow_the_settings(project):
    project.values["ablations"] = dict(reversed(project.values["ablations"].items()))
    assert list(project.table().index) == list(reversed(ABLATIONS))


def test_a_removed_ablation_leaves_no_row_although_its_files_remain(project):
    del project.values["ablations"]["no_refinement"]
    assert project.run_folder("no_refinement", 0).is_dir()
    assert "no_refinement" not in project.table().index
    assert "no_refinement" not in project.markdown()


def test_cells_are_those_of_the_runs(project):
    table = project.table()
    xkd = table.loc["xkd"]
    _, p = t_test_of_three([x - a for x, a in zip(VIDEO["xkd"], VIDEO["ae"], strict=True)])
    assert float(xkd["student.video.linear.mean"]) == 32
    assert float(xkd["student.video.linear.sd"]) == pytest.approx(math.sqrt(3), abs=1e-4)
    assert float(xkd["student.video.linear.difference"]) == 5
    assert float(xkd["student.video.linear.p"]) == pytest.approx(p, rel=1e-3)
    assert xkd[["seeds", "seconds", "trainable_parameters"]].tolist() == ["3", "11.0", "1000"]
    assert xkd[["clips_train", "clips_test", "manifest"]].tolist() == ["40", "20", "abc123"]
    assert xkd["mlflow_runs"] == "xkd-0;xkd-1;xkd-2"
    assert table.loc["recon_video", "settings"] == (
        "objective.distillation=0; objective.alignment=0; objective.reconstruct=[video]"
    )


def test_differences_are_to_the_baseline_of_the_settings(project):
    project.values["report"]["baseline"] = "random_init"
    table = project.table()
    assert float(table.loc["ae", "student.video.linear.difference"]) == 7
    assert table.loc["random_init", "student.video.linear.p"] == ""


def test_what_an_ablation_lacks_is_empty(project):
    table = project.table()
    columns = [f"student.audio.linear.{column}" for column in ("mean", "sd", "difference", "p")]
    assert set(table.loc["recon_video", columns]) == {""}
    assert table.loc["random_init", "student.video.finetune.mean"] == ""
    assert table.loc["xkd", "teacher.video.linear.mean"] == "22.0"
    assert table.loc["xkd", "teacher.video.linear.difference"] == "", "the baseline has no teacher"


def test_tasks_come_in_a_fixed_order(project):
    means = [column.removesuffix(".mean") for column in project.table().columns if column.endswith(".mean")]
    assert means == [
        "student.video.linear",
        "student.audio.linear",
        "student.video.knn",
        "student.video.finetune",
        "teacher.video.linear",
    ]


def test_untracked_runs_have_no_ids(project):
    for seed in SEEDS:
        (project.run_folder("ae", seed) / "mlflow.json").write_text('{"run_id": null, "experiment_id": null}')
        seal(project.run_folder("ae", seed))
    assert project.table().loc["ae", "mlflow_runs"] == ""


def test_two_reports_of_the_same_runs_are_equal_byte_for_byte(project):
    first, second = contents(project.write_report("first")), contents(project.write_report("second"))
    assert first == second
    assert set(map(str, first)) == {
        "table.csv",
        "verdicts.csv",
        "table.md",
        "paper-comparison.md",
        "paper-agreement.csv",
        "report.html",
        *(f"figures/{name}.png" for name in FIGURES),
    }


def test_an_error_leaves_earlier_results_as_they_are(project):
    earlier = contents(project.write_report())
    (project.run_folder("xkd", 0) / "samples.npz").write_bytes(b"damaged")
    seal(project.run_folder("xkd", 0))
    with pytest.raises(UserError, match="samples.npz: unreadable"):
        project.write_report()
    assert contents(project.root / "results") == earlier


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("runs/digits/ae/seed1/metrics.json", "pretrain .*--ablation ae --seed 1 --out runs/digits/ae/seed1"),
        ("runs/digits/ae/seed1/steps.csv", "pretrain .*--ablation ae --seed 1"),
        ("evals/digits/xkd/seed2/finetune.json", "evaluate .*--run runs/digits/xkd/seed2 --task finetune"),
    ],
)
def test_a_missing_file_is_named_with_its_command(project, path, command):
    (project.root / path).unlink()
    with pytest.raises(UserError, match=f"{path}: missing; make it with: python -m xkd {command}"):
        project.table()


@pytest.mark.parametrize("name", ["metrics.json", "steps.csv", "embeddings.npz"])
def test_a_run_whose_files_are_not_its_own_is_refused(project, name):
    path = project.run_folder("ae", 1) / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=f"seed1/{name}: not the file that this run wrote .* pretrain --"):
        project.table()


def test_an_evaluation_of_other_encoders_or_with_the_tables_of_another_is_refused(project):
    encoders = project.run_folder("ae", 1) / "encoders" / "video_student"
    encoders.mkdir(parents=True)
    (encoders / "model.safetensors").write_text("trained again")
    seal(project.run_folder("ae", 1))
    with pytest.raises(UserError, match="ae/seed1/linear.json: judges other encoders than those in .* evaluate --"):
        project.table()
    project.write_scores("ae", 1)
    shutil.copy(*(project.scores_file("ae", seed).with_suffix(".confusion.csv") for seed in (0, 1)))
    with pytest.raises(UserError, match="linear.confusion.csv: not the file that was written with linear.json"):
        project.table()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"task": "probe"}, "task probe, but the settings ask for linear"),
        ({"protocol": "svm"}, "protocol svm, but the settings ask for linear"),
        ({"dataset": "ucf101"}, "data set ucf101, but the settings ask for digits"),
    ],
)
def test_results_of_another_question_are_refused(project, changed, words):
    path = project.scores_file("ae", 1)
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(UserError, match=f"ae/seed1/linear.json: {words}; make it with: .* evaluate"):
        project.table()


def test_the_first_missing_file_is_the_first_of_the_settings(project):
    for ablation in ("random_init", "ae"):
        project.scores_file(ablation, 0).unlink()
    with pytest.raises(UserError, match="digits/ae/seed0/linear.json"):
        project.table()


@pytest.mark.parametrize("content", ["{", '{"manifest": "abc123"}', '{"manifest": "abc123", "clips": {"train": 1}}'])
def test_an_unreadable_file_is_one_line(project, content):
    project.scores_file("ae", 0).write_text(content)
    with pytest.raises(UserError, match="digits/ae/seed0/linear.json: ") as caught:
        project.table()
    assert "\n" not in str(caught.value)


def test_a_metric_that_is_not_a_number_is_refused(project):
    path = project.scores_file("ae", 0)
    path.write_text(path.read_text().replace("26.0", "NaN"))
    with pytest.raises(UserError, match="student.video.linear.top1"):
        project.table()


def test_runs_from_different_data_are_refused(project):
    path = project.scores_file("no_refinement", 2)
    path.write_text(path.read_text().replace("abc123", "def456"))
    with pytest.raises(
        UserError, match="no_refinement/seed2/linear.json: made from data manifest def456, but .* abc123"
    ):
        project.table()


def test_a_row_may_be_pretrained_on_other_data(project):
    """Of which all its runs need the same version; where it was pretrained is said beside its figures."""
    assert set(project.table()["dataset"]) == {"digits"}
    assert "pretrained on" not in project.markdown()
    before = project.table()
    project.values["datasets"]["letters"] = project.values["datasets"]["digits"]
    project.values["ablations"]["no_refinement"]["dataset"] = "letters"
    with pytest.raises(UserError, match="runs/letters/no_refinement/seed0.*--manifest data/letters/manifest.csv"):
        project.table()
    for seed in SEEDS:
        project.write_run("no_refinement", seed, manifest="def456")
    after = project.table()
    assert after.loc["no_refinement", ["dataset", "manifest"]].tolist() == ["letters", "def456"]
    assert after.loc["xkd", ["dataset", "manifest"]].tolist() == ["digits", "abc123"]
    assert after.drop(columns=["dataset", "manifest"]).equals(before.drop(columns=["dataset", "manifest"]))
    text = project.markdown()
    assert "| no_refinement | letters | 31.7" in text
    assert "Pretrained on `letters` instead (manifest `def456`), and judged on the same tasks: `no_refinement`." in text
    project.write_run("no_refinement", 2, manifest="0ff1ce")
    with pytest.raises(UserError, match="no_refinement/seed2/metrics.json: made from data manifest 0ff1ce"):
        project.table()


def test_figures_of_clips_show_rows_that_are_pretrained_on_the_data_of_the_table(project):
    """Clips of another data set have other ids, of which this table has no images."""
    assert shown_run(collect(project.params), "embeddings.npz", ["video_after"])[0].ablation == "xkd"
    project.values["datasets"]["letters"] = project.values["datasets"]["digits"]
    project.values["ablations"]["xkd"]["dataset"] = "letters"
    for seed in SEEDS:
        project.write_run("xkd", seed, manifest="def456")
    results = collect(project.params)
    assert shown_run(results, "embeddings.npz", ["video_after"])[0].ablation == "no_refinement"
    assert [row[0] for row in shared_space_table(results).rows] == ["no_refinement"]


def test_data_prepared_anew_since_the_runs_are_refused(project):
    path = project.root / "data" / "digits" / "summary.json"
    path.write_text(path.read_text().replace("abc123", "def456"))
    with pytest.raises(
        UserError, match=r"data/digits/summary.json: manifest def456, but the runs were made from abc123"
    ):
        project.shown()


def test_only_listed_ablations_need_a_finetuning_result(project):
    project.values["tasks"]["finetune"]["ablations"] = []
    project.scores_file("xkd", 0, "finetune").unlink()
    assert not [column for column in project.table().columns if "finetune" in column]


def test_a_single_seed_gives_a_table_without_spread(project):
    project.values["seeds"] = [1]
    xkd = project.table().loc["xkd"]
    assert xkd[[f"student.video.linear.{c}" for c in ("mean", "sd", "difference", "p")]].tolist() == [
        "33.0",
        "",
        "6.0",
        "",
    ]
