"""Sweeps in the report: which rows stand where, what the figure says, and how the figures come about."""

import csv

import numpy as np
import pytest
import yaml
from invented import AUDIO, SEEDS, VIDEO
from scipy.stats import ttest_1samp

from xkd import params
from xkd.report import page
from xkd.report.collect import collect
from xkd.report.csv_table import ablation_table
from xkd.report.dataset import data_facts
from xkd.report.sweep_curves import sweep_curves, sweep_table
from xkd.stages import table as stage

SWEEPS = {
    "mask": {"key": "objective.mask_video", "values": [0.5, 0.85, 0.9], "of": ["xkd", "ae"], "hypothesis": "How much?"},
    "both": {"grid": {"objective.mask_video": [0.5, 0.85], "objective.mask_audio": [0.6, 0.8]}, "of": ["xkd"]},
}
ADDED = {
    "xkd_mask_0_5": (40.0, 41.0, 43.0),
    "xkd_mask_0_9": (35.0, 35.5, 36.0),
    "ae_mask_0_5": (20.0, 22.0, 21.0),
    "ae_mask_0_9": (29.0, 30.0, 31.0),
    "xkd_both_0_5__0_6": (31.0, 32.0, 33.0),
    "xkd_both_0_85__0_6": (32.0, 32.0, 35.0),
}


@pytest.fixture
def swept(project, monkeypatch):
    """The fabricated project with a curve of two rows and a heat map, as the settings file describes them."""
    project.values["sweeps"] = SWEEPS
    (project.root / "params.yaml").write_text(yaml.safe_dump(project.values, sort_keys=False))
    for name, figures in ADDED.items():
        monkeypatch.setitem(VIDEO, name, figures)
        monkeypatch.setitem(AUDIO, name, figures)
        for seed in SEEDS:
            project.write_run(name, seed)
            project.write_scores(name, seed)
    return collect(params.load("params.yaml"))


def test_every_row_stands_in_the_csv_with_its_sweep(swept):
    rows = ablation_table(swept).set_index("ablation")
    assert set(ADDED) < set(rows.index)
    assert tuple(rows.loc["xkd_mask_0_5", ["sweep", "value"]]) == ("mask", "0.5")
    assert tuple(rows.loc["xkd_both_0_5__0_6", ["sweep", "value"]]) == ("both", "0.5, 0.6")
    assert tuple(rows.loc["xkd", ["sweep", "value"]]) == ("", "")


def test_a_point_that_a_row_has_already_takes_its_figures(swept):
    lines = {(line[0], line[2]): line for line in sweep_table(swept).rows}
    assert lines["mask", "objective.mask_video=0.85"][1] in ("xkd", "ae")
    assert lines["both", "objective.mask_video=0.85, objective.mask_audio=0.8"][1] == "xkd"
    assert lines["both", "objective.mask_video=0.5, objective.mask_audio=0.8"][1] == "xkd_mask_0_5"
    assert len(sweep_table(swept).rows) == 3 * 2 + 4


def test_intervals_are_those_of_the_t_distribution(swept):
    (line,) = (line for line in sweep_table(swept).rows if line[1] == "xkd_mask_0_5" and line[0] == "mask")
    low, high = ttest_1samp(ADDED["xkd_mask_0_5"], 0).confidence_interval(0.95)
    assert line[3] == f"{np.mean(ADDED['xkd_mask_0_5']):.1f} ± {(high - low) / 2:.1f}"


def test_the_best_value_of_each_row_is_marked(swept):
    table = sweep_table(swept)
    best = {tuple(table.rows[row][:2]) for row, place in table.best if place == 3}
    assert best == {("mask", "xkd_mask_0_5"), ("mask", "ae_mask_0_9"), ("both", "xkd_mask_0_5")}


def test_the_figure_draws_curves_and_a_heat_map(swept):
    figure = sweep_curves(swept)
    assert len(figure.axes) == 2 * 2, "video and audio; a curve and a heat map"
    assert "Best: xkd video: objective.mask_video=0.5, 41.3 %; xkd audio" in figure.get_label()
    curve = next(c for c in figure.axes[0].containers if c.get_label() == "xkd")
    x, y = (np.asarray(one, dtype=float) for one in curve.lines[0].get_data())
    assert list(x) == [0.5, 0.85, 0.9]
    np.testing.assert_allclose(
        y, [np.mean(one) for one in (ADDED["xkd_mask_0_5"], VIDEO["xkd"], ADDED["xkd_mask_0_9"])]
    )
    heat = np.asarray(figure.axes[2].images[0].get_array())
    np.testing.assert_allclose(heat, [[32.0, np.mean(ADDED["xkd_mask_0_5"])], [33.0, 32.0]])


def test_the_page_keeps_sweeps_out_of_the_main_table(swept, project):
    shown = page.context(swept, data_facts(project.root / "data" / "digits", swept.manifest))
    assert {row[0] for row in shown["main"].rows} == {"xkd", "ae", "recon_video", "no_refinement", "random_init"}
    assert "## Sweeps" in page.markdown(shown)


def test_the_stage_writes_the_figure_and_the_section(swept, project):
    stage.run(swept.params, project.root / "results")
    html = (project.root / "results" / "report.html").read_text()
    assert '<a href="#sweeps">' in html
    assert "How much?" in html
    with (project.root / "results" / "table.csv").open() as file:
        assert {row["sweep"] for row in csv.DictReader(file)} == {"", "mask", "both"}
    project.values["sweeps"] = {}
    project.write_report()
    assert not (project.root / "results" / "figures" / "sweeps.png").exists(), "it goes with the sweeps"


def test_a_table_without_sweeps_has_no_section(report):
    assert 'id="sweeps"' not in (report / "report.html").read_text()
    assert "sweep" not in (report / "table.csv").read_text().splitlines()[0]
