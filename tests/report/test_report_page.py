import json
import re

import matplotlib.image
import numpy as np
import pytest
from invented import AUDIO, SEEDS, VIDEO
from run_folders import seal

from xkd.report import bars, confusion, curves, embedding_map, page, sample_figures, style
from xkd.report.collect import collect
from xkd.report.paper import PaperResults, mirrored
from xkd.report.text import main_table


def rows(markdown, heading):
    """The first table after a heading: list of {title: cell}."""
    lines = markdown.split(heading, 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[start:]]
    cells = [
        [cell.strip() for cell in row] for row in cells[: next((i for i, row in enumerate(cells) if not row), None)]
    ]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def drawn(figure, folder):
    """A saved figure as (height, width, 3) in 0..1."""
    style.save_figure(figure, folder / "figure.png")
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
    assert next(iter(PaperResults().of(method, mirrored(task)).values())) == percent


def test_the_paper_has_no_figure_for_what_it_did_not_try():
    assert PaperResults().of("recon_video", mirrored("ESC50 audio")) == {}
    assert PaperResults().of(None, mirrored("UCF101 video")) == {}
    assert PaperResults().of("xkd_mas", mirrored("UCF101 video")).keys() == {"video"}


def test_main_table_shows_means_differences_and_the_papers_figures_as_other_data(project):
    text = project.markdown()
    table = rows(text, "# Ablations of XKD on `digits`")
    assert [row["ablation"] for row in table] == list(project.values["ablations"])
    xkd = table[0]
    assert xkd["video"] == "32.0 ± 1.7 (+5.0)"
    assert xkd["PAPER, other data: UCF101 video"] == "84.7"
    assert table[2]["audio"] == table[2]["PAPER, other data: ESC50 audio"] == "–"
    assert "ANOTHER DATA SET" in text
    assert "Kinetics400" in text
    assert "2211.13929" in text


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
    assert len(words) == len(page.FIGURES)
    assert len(set(words)) == len(words)
    assert min(map(len, words)) > 50
    shown = " ".join(words)
    assert "student video linear probe: xkd, 32.0 %" in shown, "the longest bar"
    assert "dog as cat" not in shown
    assert "cat as dog 6 times" in shown, "errors of all seeds together"


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
    assert f"+5.0 [+{5 - half:.1f}, +{5 + half:.1f}]" in page_text


def test_versions_are_told_per_group_of_runs(project, report):
    assert "All 15 runs were pretrained with" in project.html(report / "figures")
    path = project.run_folder("xkd", 2) / "versions.json"
    path.write_text(path.read_text().replace("c0ffee", "deadbeef-dirty"))
    seal(path.parent)
    page_text = project.html(report / "figures")
    assert "1 run (xkd 2) was" in page_text
    assert "deadbeef-dirty" in page_text


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
    assert page.MLFLOW not in page_text
    assert "No run of this table was tracked" in page_text


def test_page_escapes_what_users_wrote(project, report):
    project.values["ablations"]["ae"]["hypothesis"] = "<b>1 < 2</b>"
    page_text = project.html(report / "figures")
    assert "&lt;b&gt;1 &lt; 2&lt;/b&gt;" in page_text
    assert "<b>1" not in page_text


def test_page_without_prepared_data_still_comes(project, report):
    (project.root / "data" / "digits" / "summary.json").unlink()
    assert "the prepared data were not there" in project.html(report / "figures")


@pytest.mark.parametrize("name", [name for name in page.FIGURES if name != "contact-sheet"])
def test_every_figure_has_content(report, name):
    image = matplotlib.image.imread(report / "figures" / f"{name}.png")[..., :3]
    assert min(image.shape[:2]) > 250
    assert (image.min(axis=2) < 0.9).mean() > 0.01


def test_bars_are_as_long_as_the_mean_accuracy(project):
    panels = {axis.get_title(loc="left"): axis for axis in bars.ablation_bars(collect(project.params)).axes}
    video = panels["video, linear probe, student"]
    assert [bar.get_width() for bar in video.patches] == pytest.approx([np.mean(VIDEO[name]) for name in VIDEO])
    assert [label.get_text() for label in video.get_yticklabels()] == list(VIDEO)
    assert [line.get_xdata()[0] for line in video.lines if line.get_label().startswith("chance")] == [25]
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
    image = drawn(sample_figures.reconstructions(collect(project.params)), tmp_path)
    green = np.isclose(image, [0, 1, 0], atol=0.01).all(axis=2)
    assert 0.1 < green.mean() < 0.2, "one of six rows"


def test_without_what_it_shows_a_figure_says_so(project, tmp_path):
    project.values["ablations"] = {"recon_video": project.values["ablations"]["recon_video"]}
    project.values["tasks"]["finetune"]["ablations"] = []
    project.values["report"]["baseline"] = "recon_video"
    results = collect(project.params)
    for draw in (
        sample_figures.reconstructions,
        sample_figures.refinement,
        embedding_map.embedding_map,
        curves.alignment_curves,
    ):
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
    figure = sample_figures.refinement(collect(project.params))
    for axis, brightest in ((figure.axes[2], "upper right"), (figure.axes[5], "upper left")):
        plain, over = axis.images
        assert plain.get_extent() == over.get_extent()
        assert 0 < over.get_alpha() < 1
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
    variances, directions = np.linalg.eigh(np.cov(points.T))
    coordinates = (points - points.mean(0)) @ directions[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(plane), np.abs(coordinates), atol=1e-8)
    np.testing.assert_allclose(shares, variances[[-1, -2]] / variances.sum())


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


def paper_titles(project):
    return [title for title in main_table(collect(project.params), PaperResults()).header if title.startswith("PAPER")]


def test_own_clips_have_no_figures_of_the_paper_beside_them(project):
    """Neither columns nor orderings, whatever the user calls the data set."""
    for kind in ("folder", "manifest"):
        project.values["datasets"]["digits"] = {"kind": kind, "source": "ucf101"}
        text = project.markdown()
        assert "PAPER" not in text
        assert "2211.13929" not in text
        assert "your own" in text
        assert "has a counterpart" not in text


def test_the_data_set_of_the_paper_is_noticed(project):
    assert paper_titles(project)[0] == "PAPER, other data: UCF101 video"
    project.values["datasets"]["digits"]["kind"] = "ucf101"  # pretrained on it, which the paper never did
    assert paper_titles(project) == [
        *("PAPER, other pretraining: UCF101 video", "PAPER, other data: HMDB51 video", "PAPER, other data: ESC50 audio")
    ]
    project.values["datasets"]["digits"]["kind"] = "kinetics400"
    titles = paper_titles(project)
    assert titles == [f"PAPER, pretrained on kinetics400: kinetics400 video {p}" for p in ("linear", "finetune")]
    text = project.markdown()
    assert "other data" not in text
    assert "ANOTHER DATA SET" not in text
    assert rows(text, "# Ablations")[0][titles[0]] == "46.4 (ablation-losses), 51.4 (video)"
    project.values["datasets"]["digits"]["kind"] = "audioset"
    assert paper_titles(project) == []


def rewritten(project, ablation, seed, protocol="linear", **changes):
    """Changes what an evaluation wrote; `metrics` as text to replace."""
    path = project.scores_file(ablation, seed, protocol)
    scores = json.loads(path.read_text())
    path.write_text(json.dumps(scores | changes))
    return scores


def test_columns_and_panels_say_their_metric_and_their_own_chance(project):
    project.values["datasets"]["sounds"] = {"kind": "fsd50k"}
    project.values["tasks"]["fsd"] = {
        "protocol": "layer",
        "dataset": "sounds",
        "modalities": ["audio"],
        "ablations": ["xkd"],
    }
    for seed in SEEDS:
        scores = rewritten(project, "xkd", seed)
        sounds = {
            "dataset": "sounds",
            "task": "fsd",
            "protocol": "layer",
            "metrics": {"student.audio.layer.map": 40 + seed},
            "chance": {"student.audio.layer": 2.5},
            "files": {},
        }
        project.scores_file("xkd", seed, "fsd").write_text(json.dumps(scores | {"manifest": "other"} | sounds))
    results = collect(project.params)
    assert "audio fsd_layer mAP" in main_table(results, PaperResults()).header
    assert project.table().loc["xkd", "student.audio.fsd_layer.metric"] == "map"
    chances = {
        axis.get_title(loc="left"): [
            line.get_xdata()[0] for line in axis.lines if line.get_label().startswith("chance")
        ]
        for axis in bars.ablation_bars(results).axes
    }
    assert chances["audio, fsd_layer mAP, student"] == [2.5]
    assert chances["video, linear probe, student"] == [25]
    assert chances["video, finetuned, student"] == [], "its evaluations say nothing of chance"
    clips = "40 training and 20 test clips; the test clips are made of 7 video items, 3 audio items"
    assert f"data set `sounds` ({clips}); chance level: 2.5 %." in project.markdown()


def test_every_output_says_how_many_of_the_listed_clips_were_tested(project, report):
    project.values["datasets"]["digits"]["kind"] = "hmdb51"
    project.values["tasks"]["linear"]["folds"] = ["1", "2"]
    clips = {"train": 2635, "test": 1115, "listed_train": 3570, "listed_test": 1530}
    folds = {
        name: {"clips": {"train": 1, "test": tested, "listed_test": 510}} for name, tested in (("1", 372), ("2", 743))
    }
    for name in project.values["ablations"]:
        for seed in SEEDS:
            rewritten(project, name, seed, clips=clips | {"left_out": {"test": {"too short": 415}}}, folds=folds)
    told = (
        "Not the official protocol**: 1,115 of 1,530 official test clips (fold 1: 372 of 510, fold 2: 743 of 510; "
        "left out: 415 too short); 2,635 of 3,570 official training clips"
    )
    text = project.markdown()
    assert "`linear` 1,115 of 1,530, `finetune` 20" in text
    assert told in text
    assert told.replace("**", "</strong>") in project.html(report / "figures")
    assert project.table().loc["xkd", ["linear.tested_clips", "linear.listed_clips"]].tolist() == ["1115", "1530"]
    assert project.table().loc["random_init", ["finetune.tested_clips", "finetune.listed_clips"]].tolist() == ["", ""]


def test_remarks_of_evaluations_stand_under_the_table_with_task_and_rows(project, report):
    for seed in SEEDS:
        rewritten(project, "xkd", seed, notes=["one <script>label</script> | only"])
        rewritten(project, "ae", seed, notes=["one <script>label</script> | only"] * 2)
    assert "- Task `linear`, rows `xkd`, `ae`: one &lt;script>label&lt;/script> | only\n" in project.markdown()
    page_text = project.html(report / "figures")
    assert "rows <code>xkd</code>, <code>ae</code>: one &lt;script&gt;label&lt;/script&gt; | only" in page_text


def test_rows_of_given_teachers_alone_make_the_main_table(project):
    project.values["ablations"] = {"xkd": project.values["ablations"]["xkd"]}
    project.values["report"]["baseline"] = "xkd"
    project.values["tasks"] = {"linear": {"protocol": "linear"}}
    for seed in SEEDS:
        path = project.scores_file("xkd", seed)
        scores = json.loads(path.read_text())
        metrics = {key: value for key, value in scores["metrics"].items() if key.startswith("teacher")}
        path.write_text(json.dumps(scores | {"metrics": metrics}))
    text = project.markdown()
    (row,) = rows(text, "# Ablations")
    assert row["teacher video"] == "22.0 ± 1.7"
    assert not any("student" in title for title in row)
    assert "## Teacher encoders" not in text


def test_what_users_wrote_cannot_break_markdown_or_figures(project, report, tmp_path):
    project.values["ablations"]["ae"]["hypothesis"] = "a | b\n<script>alert(1)</script> `x <b"
    project.values["ablations"]["ae"]["paper_table"] = "Table | <img src=x>"
    for seed in SEEDS:
        path = project.scores_file("ae", seed).with_suffix(".confusion.csv")
        path.write_text(path.read_text().replace("cat", r"$\frac{<b>|`"))
        rewritten(project, "ae", seed, files={})
    text = project.markdown()
    (row,) = (row for row in rows(text, "## What each row asks") if row["ablation"] == "ae")
    assert row["hypothesis"] == r"a \| b &lt;script>alert(1)&lt;/script> `x &lt;b"
    assert len(row) == 5
    assert "<script" not in text
    assert "<img" not in text
    assert drawn(confusion.confusion_matrices(collect(project.params)), tmp_path).min() < 0.5
