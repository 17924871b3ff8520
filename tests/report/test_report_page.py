import re

import matplotlib.image
import numpy as np
import pytest
from conftest import AUDIO, SEEDS

from xkd.report import bars, curves, page, pictures, style
from xkd.report.agreement import Agreement
from xkd.report.collect import collect
from xkd.report.paper import PaperResults
from xkd.report.statistics import Comparison


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
    assert not re.search(r"https?://|<script|<link|@import", text)
    assert "no audio" in text, "reasons of clips that were left out"
    assert "student_temperature: 0.1" in text, "effective settings"


def test_page_escapes_what_users_wrote(project, report):
    project.values["ablations"]["ae"]["hypothesis"] = "<b>1 < 2</b>"
    text = page.html(project.shown(), report / "figures")
    assert "&lt;b&gt;1 &lt; 2&lt;/b&gt;" in text and "<b>1" not in text


def test_page_without_prepared_data_still_comes(project, report):
    (project.root / "data" / "digits" / "summary.json").unlink()
    assert "the prepared data were not there" in page.html(project.shown(), report / "figures")


@pytest.mark.parametrize("name", page.FIGURES)
def test_every_figure_has_content(report, name):
    image = matplotlib.image.imread(report / "figures" / f"{name}.png")[..., :3]
    assert min(image.shape[:2]) > 250
    assert (image.min(axis=2) < 0.9).mean() > 0.01


def test_bars_grow_with_accuracy(project, tmp_path):
    def blue():
        image = drawn(bars.ablation_bars(collect(project.params), chance=25.0), tmp_path)
        return int(((image[..., 2] - image[..., 0]) > 0.25).sum())

    before = blue()
    for seed in SEEDS:
        path = project.scores_file("ae", seed)
        path.write_text(re.sub(r'("student.video.linear.top1": )[\d.]+', rf"\g<1>{8.0 + seed}", path.read_text()))
    assert blue() < 0.9 * before


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
    image = drawn(pictures.reconstructions(collect(project.params)), tmp_path)
    green = np.isclose(image, [0, 1, 0], atol=0.01).all(axis=2)
    assert 0.1 < green.mean() < 0.2, "one of six rows"


def test_without_samples_a_figure_says_so(project, tmp_path):
    project.values["ablations"] = {"recon_video": project.values["ablations"]["recon_video"]}
    project.values["tasks"]["finetune"]["ablations"] = []
    results = collect(project.params)
    for draw in (pictures.reconstructions, pictures.refinement):
        figure = draw(results)
        assert "No ablation of this table" in figure.texts[0].get_text()
        assert drawn(figure, tmp_path).min() < 0.5


def test_audio_is_the_same_in_both_rows_so_no_p_value(project):
    assert AUDIO["xkd"] == AUDIO["ae"]
    assert rows(project.markdown(), "# Ablations")[0]["audio"] == "51.0 ± 1.0 (+0.0)"
