import re

import matplotlib.image
import numpy as np
import pytest
from invented import AUDIO, SEEDS, VIDEO
from run_folders import seal
from sklearn.decomposition import PCA

from xkd.report import bars, confusion, curves, embedding_map, page, pictures, style
from xkd.report.agreement import Agreement
from xkd.report.collect import collect
from xkd.report.paper import PaperResults
from xkd.report.statistics import Comparison
from xkd.report.text import main_table


def rows(markdown, heading):
    """The first table after a heading: list of {title: cell}."""
    lines = markdown.split(heading, 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[start:]]
    cells = [
        [cell.strip() for cell in row] for row in cells[: next((i for i, row in enumerate(cells) if not row), None)]
    ]
    return [dict(zip(cells[0], row)) for row in cells[2:]]


def drawn(figure, folder):
    """A saved figure as (height, width, 3) in 0..1."""
    style.save(figure, folder / "figure.png")
    return matplotlib.image.imread(folder / "figure.png")[..., :3]


@pytest.mark.parametrize(
    ("method", "task", "percent"),
    [
        ("xkd", "UCF101 video", 84.7),
        ("xkd", "HMDB51 video", 59.3),
        ("xkd", "ESC50 audio", 91.0),
        ("ae", "UCF101 video", 76.3),
        ("xkd_mas", "ESC50 audio", 87.3),
        ("xkd_mats", "HMDB51 video", 53.1),
        ("xkd_no_refinement", "UCF101 video", 79.3),
    ],
)
def test_the_papers_figures(method, task, percent):
    assert PaperResults().figure(method, task).percent == percent


def test_the_paper_has_no_figure_for_what_it_did_not_try():
    assert PaperResults().figure("recon_video", "ESC50 audio") is None
    assert PaperResults().figure(None, "UCF101 video") is None
    assert PaperResults().figure("xkd_mas", "UCF101 video", table="ablation-losses") is None


def test_main_table_shows_means_differences_and_the_papers_figures_as_other_data(project):
    text = project.markdown()
    table = rows(text, "# Ablations of XKD on `digits`")
    assert [row["ablation"] for row in table] == list(project.values["ablations"])
    xkd = table[0]
    assert xkd["video"] == "32.0 ± 1.7 (+5.0, p 0.013)"
    assert xkd["PAPER, other data: UCF101 video"] == "84.7"
    assert table[2]["audio"] == table[2]["PAPER, other data: ESC50 audio"] == "–"
    assert "ANOTHER DATA SET" in text and "Kinetics400" in text and "2211.13929" in text


def test_notes_say_what_was_counted(project):
    text = project.markdown()
    for fact in (
        "`abc123`",
        "40 training clips",
        "20 test clips",
        "7 video items",
        "3 audio items",
        "25.0 % (4 labels)",
    ):
        assert fact in text


def test_hypotheses_cannot_break_the_table(project):
    table = rows(project.markdown(), "## What each row asks")
    assert [row["hypothesis"] for row in table][:2] == [r"All terms \| together.", "The baseline."]
    assert all(len(row) == 5 for row in table)


def test_agreement_compares_within_one_table_of_the_paper(project):
    table = {(row["ablation"], row["modality"]): row for row in rows(project.markdown(), "## Agreement with the paper")}
    assert table["xkd", "video"]["PAPER, other data: difference"] == "UCF101 +8.4, HMDB51 +8.1"
    assert table["xkd", "video"]["verdict"] == "agrees"
    refinement = table["no_refinement", "video"]
    assert refinement["compared with"] == "xkd", "the paper's table of refinement has no ae"
    assert refinement["PAPER, other data: difference"] == "UCF101 -3.3, HMDB51 -2.9"
    assert refinement["difference here"].startswith("-0.3")
    assert not {"ae", "random_init"} & {ablation for ablation, _ in table}


def test_a_row_that_contradicts_the_paper_says_so(project):
    for seed, value in zip(SEEDS, (20.0, 21.5, 21.0)):
        path = project.scores_file("xkd", seed)
        path.write_text(re.sub(r'("student.video.linear.top1": )[\d.]+', rf"\g<1>{value}", path.read_text()))
    table = rows(project.markdown(), "## Agreement with the paper")
    assert table[0]["verdict"] == "disagrees: opposite sign"


@pytest.mark.parametrize(
    ("difference", "p", "paper", "verdict"),
    [
        (3.0, 0.01, 8.0, "agrees"),
        (-3.0, 0.01, 8.0, "disagrees: opposite sign"),
        (3.0, 0.2, 8.0, "same sign, within noise"),
        (-3.0, None, 8.0, "opposite sign, within noise"),
        (3.0, 0.01, -0.2, "disagrees: the paper shows no difference"),
        (3.0, 0.2, 0.0, "no difference shown, as in the paper"),
        (0.0, None, 8.0, "no difference here"),
    ],
)
def test_verdicts(difference, p, paper, verdict):
    here = Comparison(mean=20.0, sd=1.0, difference=difference, p=p)
    assert Agreement("xkd", "video", "ae", here, {"UCF101": paper}).verdict == verdict


def test_page_is_self_contained(report):
    text = (report / "report.html").read_text()
    assert text.count("data:image/png;base64,") == len(page.FIGURES)
    links = set(re.findall(r"""(?:src|href|action)=["']?([^"'> ]{1,40})""", text))
    assert {link for link in links if not link.startswith(("data:", "#", page.MLFLOW))} == set()
    assert not re.search(r"<link|@import|url\(|fetch\(|<script src", text)
    assert "default-src 'none'" in text, "the browser refuses to load anything"
    assert "no audio" in text, "reasons of clips that were left out"
    assert "student_temperature: 0.1" in text, "effective settings"


def test_every_section_can_be_reached(report):
    text = (report / "report.html").read_text()
    sections = set(re.findall(r'<section id="(\w+)"', text))
    assert set(re.findall(r'href="#(\w+)"', text)) == sections
    assert {
        *("table", "bars", "curves", "collapse", "reconstructions", "refinement", "embeddings", "alignment"),
        *("confusion", "retrieval", "data", "settings", "versions", "mlflow"),
    } <= sections


def test_every_picture_says_what_it_shows(report):
    words = re.findall(r'<img[^>]*alt="([^"]*)"', (report / "report.html").read_text())
    assert len(words) == len(page.FIGURES) and len(set(words)) == len(words)
    assert min(map(len, words)) > 50
    shown = " ".join(words)
    assert "student video linear probe: xkd, 32.0 %" in shown, "the longest bar"
    assert "dog as cat" not in shown and "cat as dog 6 times" in shown, "errors of all seeds together"


def test_best_pretrained_row_of_each_task_is_marked(project):
    main = main_table(collect(project.params), PaperResults())
    assert {(main.header[column], main.rows[row][0]) for row, column in main.best} == {
        *(("video", "xkd"), ("video kNN", "xkd")),
        *((title, name) for title in ("audio", "video finetuned") for name in ("xkd", "ae")),  # ties
    }


def test_a_yardstick_is_never_best(project):
    project.values["ablations"]["xkd"]["changes"] = {"training": {"mode": "none"}}
    main = main_table(collect(project.params), PaperResults())
    assert not [row for row, _ in main.best if main.rows[row][0] in ("xkd", "random_init")]


def test_page_shows_intervals_of_differences(project, report):
    page_text = project.html(report / "figures")
    half = 4.302653 / 3**0.5  # Student's t with two degrees of freedom; differences 4, 6 and 5 deviate by 1
    assert f"+5.0 [+{5 - half:.1f}, +{5 + half:.1f}], p 0.013" in page_text


def test_versions_are_told_per_group_of_runs(project, report):
    assert "All 15 runs were pretrained with" in project.html(report / "figures")
    path = project.run_folder("xkd", 2) / "versions.json"
    path.write_text(path.read_text().replace("c0ffee", "deadbeef-dirty"))
    seal(path.parent)
    page_text = project.html(report / "figures")
    assert "1 run (xkd 2) was" in page_text and "deadbeef-dirty" in page_text


def test_runs_link_to_mlflow_unless_they_were_not_tracked(project, report):
    assert f'href="{page.MLFLOW}/#/experiments/1/runs/xkd-2?workflowType=machine_learning"' in project.html(
        report / "figures"
    )
    (project.run_folder("xkd", 0) / "mlflow.json").write_text('{"run_id": "older"}')
    seal(project.run_folder("xkd", 0))
    assert f'href="{page.MLFLOW}/#/runs/older?' in project.html(report / "figures"), "of an earlier version"
    for name in project.values["ablations"]:
        for seed in SEEDS:
            (project.run_folder(name, seed) / "mlflow.json").write_text('{"run_id": null, "experiment_id": null}')
            seal(project.run_folder(name, seed))
    page_text = project.html(report / "figures")
    assert page.MLFLOW not in page_text and "No run of this table was tracked" in page_text


def test_page_escapes_what_users_wrote(project, report):
    project.values["ablations"]["ae"]["hypothesis"] = "<b>1 < 2</b>"
    page_text = project.html(report / "figures")
    assert "&lt;b&gt;1 &lt; 2&lt;/b&gt;" in page_text and "<b>1" not in page_text


def test_page_without_prepared_data_still_comes(project, report):
    (project.root / "data" / "digits" / "summary.json").unlink()
    assert "the prepared data were not there" in project.html(report / "figures")


@pytest.mark.parametrize("name", [name for name in page.FIGURES if name != "contact-sheet"])
def test_every_figure_has_content(report, name):
    image = matplotlib.image.imread(report / "figures" / f"{name}.png")[..., :3]
    assert min(image.shape[:2]) > 250
    assert (image.min(axis=2) < 0.9).mean() > 0.01


def test_bars_are_as_long_as_the_mean_accuracy(project):
    panels = {
        axis.get_title(loc="left"): axis for axis in bars.ablation_bars(collect(project.params), chance=25.0).axes
    }
    video = panels["video, linear probe, student"]
    assert [bar.get_width() for bar in video.patches] == pytest.approx([np.mean(VIDEO[name]) for name in VIDEO])
    assert [label.get_text() for label in video.get_yticklabels()] == list(VIDEO)
    assert [line.get_xdata()[0] for line in video.lines if line.get_label() == "chance"] == [25]
    finetuned = panels["video, finetuned, student"]
    assert [label.get_text() for label in finetuned.get_yticklabels()] == ["xkd", "ae"], "rows that have the task"
    assert panels["audio, linear probe, student"].texts[2].get_text() == "no such encoder"


def test_curves_are_means_over_seeds_of_what_each_ablation_logs(project):
    panels = {axis.get_title(loc="left"): axis for axis in curves.loss_curves(collect(project.params)).axes}
    lines = {line.get_label(): line.get_ydata() for line in panels["reconstruction, video"].lines}
    assert lines["ae"][1] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert "random_init" not in lines
    assert {line.get_label() for line in panels["distillation, video student"].lines} == {"xkd", "no_refinement"}


def test_reconstructions_show_the_samples(project, tmp_path):
    path = project.run_folder("xkd", 0) / "samples.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["video_predicted"] = np.broadcast_to(np.float32([0.0, 1.0, 0.0]), arrays["video_true"].shape)
    np.savez(path, **arrays)
    seal(path.parent)
    image = drawn(pictures.reconstructions(collect(project.params)), tmp_path)
    green = np.isclose(image, [0, 1, 0], atol=0.01).all(axis=2)
    assert 0.1 < green.mean() < 0.2, "one of six rows"


def test_without_what_it_shows_a_figure_says_so(project, tmp_path):
    project.values["ablations"] = {"recon_video": project.values["ablations"]["recon_video"]}
    project.values["tasks"]["finetune"]["ablations"] = []
    project.values["report"]["baseline"] = "recon_video"
    results = collect(project.params)
    for draw in (pictures.reconstructions, pictures.refinement, embedding_map.embedding_map, curves.alignment_curves):
        figure = draw(results)
        assert "No ablation of this table" in figure.texts[0].get_text() == figure.get_label()
        assert drawn(figure, tmp_path).min() < 0.5


def test_weights_lie_over_the_patches_that_they_belong_to(project, tmp_path):
    """A weight that stands out colours its own quarter of an otherwise grey frame."""
    path = project.run_folder("xkd", 0) / "samples.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["weights_video"] = np.full((8, 2, 2, 2), 0.5, np.float32)
    arrays["weights_video"][:, :, 0, 1] = 2.5
    arrays["weights_audio"] = np.full((8, 2, 2), 0.5, np.float32)
    arrays["weights_audio"][:, 1, 0] = 2.5
    np.savez(path, **arrays)
    seal(path.parent)
    figure = pictures.refinement(collect(project.params))
    for axis, brightest in ((figure.axes[2], "upper right"), (figure.axes[5], "upper left")):
        plain, over = axis.images
        assert plain.get_extent() == over.get_extent() and 0 < over.get_alpha() < 1
        figure.canvas.draw()
        left, bottom, right, top = np.round(axis.get_window_extent().extents).astype(int)
        drawn_axis = np.asarray(figure.canvas.buffer_rgba())[::-1][bottom:top, left:right, :3][::-1].astype(int)
        yellow = (drawn_axis[..., 1] - drawn_axis[..., 2]) > 40
        down, across = np.argwhere(yellow).mean(0) / yellow.shape
        assert ("upper" if down < 0.5 else "lower") + (" right" if across > 0.5 else " left") == brightest


def test_confusion_counts_are_summed_over_seeds(project):
    figure = confusion.confusion_matrices(collect(project.params))
    percent = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(percent, [[100 * 27 / 33, 100 * 6 / 33], [0, 100]])


def test_evaluations_without_confusions_are_no_error(project):
    for path in (project.root / "evals").rglob("*.confusion.csv"):
        path.unlink()
    assert "no confusion matrices" in confusion.confusion_matrices(collect(project.params)).get_label()


def test_plane_is_that_of_a_principal_component_analysis():
    points = np.random.default_rng(0).standard_normal((40, 7)) @ np.diag([5, 3, 1, 1, 1, 1, 1])
    plane, shares = embedding_map.principal_plane(points)
    oracle = PCA(2).fit(points)
    np.testing.assert_allclose(np.abs(plane), np.abs(oracle.transform(points)), atol=1e-8)
    np.testing.assert_allclose(shares, oracle.explained_variance_ratio_)


def test_map_shows_the_full_method_beside_a_row_that_does_not_align(project):
    project.values["ablations"]["no_refinement"]["changes"] = {"objective": {"alignment": 0}}
    titles = [axis.get_title(loc="left") for axis in embedding_map.embedding_map(collect(project.params)).axes]
    assert titles == [
        *("xkd (aligned), before training", "xkd (aligned), after training"),
        *("no_refinement (not aligned), before training", "no_refinement (not aligned), after training"),
    ]


def test_audio_is_the_same_in_both_rows_so_no_p_value(project):
    assert AUDIO["xkd"] == AUDIO["ae"]
    assert rows(project.markdown(), "# Ablations")[0]["audio"] == "51.0 ± 1.0 (+0.0)"
