"""Verdicts where users see them: CSV files, table.md, the page, MLflow's tags, the exit code of --strict."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import yaml
from invented import VIDEO
from scipy.stats import ttest_rel

from xkd import cli
from xkd.report import page
from xkd.report.collect import collect
from xkd.report.hypotheses import judged, verdict_table
from xkd.stages import table as stage

COLUMN = "student.video.linear"


@pytest.fixture
def expecting(project):
    """Three hypotheses. Differences to ae: xkd 4, 6, 5 in video and 0, 0, 0 in audio; random_init -6, -6.5, -8.5."""
    rows = project.values["ablations"]
    rows["xkd"]["expects"] = [{"than": "ae", "columns": [COLUMN, "student.audio.linear"], "direction": "above"}]
    rows["random_init"]["expects"] = [
        {"than": "ae", "columns": [COLUMN], "direction": "above", "verdict": "contradicted"}
    ]
    return project


@pytest.fixture
def figures(tmp_path):
    """A folder of figures that nobody looks at."""
    folder = tmp_path / "figures"
    folder.mkdir()
    for name in page.FIGURES:
        (folder / f"{name}.png").write_bytes(b"PNG")
    return folder


def lines(project):
    table = verdict_table(judged(collect(project.params))).astype(object)
    return {(line.ablation, line.column): line for line in table.itertuples()}


def test_each_column_is_a_hypothesis_with_corrected_p_values(expecting):
    found = lines(expecting)
    assert [line.verdict for line in found.values()] == ["supported", "undecided", "contradicted"]
    one = found["xkd", COLUMN]
    p = ttest_rel(VIDEO["xkd"], VIDEO["ae"], alternative="greater").pvalue
    assert (one.difference, one.sd, one.effect, one.seeds) == (5, 1, 5, 3)
    assert one.p == pytest.approx(p, rel=1e-3)
    assert one.p_corrected == pytest.approx(3 * p, rel=1e-3), "the smallest of three"
    assert found["xkd", "student.audio.linear"].reason == "the difference is the same for all seeds"
    assert found["random_init", COLUMN].recorded == "contradicted"


def test_the_table_names_the_verdicts_of_a_row_beside_its_figures(expecting):
    table = expecting.table()
    assert table.loc["xkd", f"{COLUMN}.verdict"] == "above ae: supported"
    assert table.loc["random_init", f"{COLUMN}.verdict"] == "above ae: contradicted"
    assert table.loc["ae", f"{COLUMN}.verdict"] == ""
    assert "student.video.knn.verdict" not in table


def test_verdicts_are_the_first_thing_to_read(expecting, figures):
    text, html = expecting.markdown(), expecting.html(figures)
    for shown in (text, html):
        assert "3 hypotheses: 1 supported, 1 contradicted, 1 undecided." in shown
        assert "undecided: the difference is the same for all seeds" in shown
        assert "over all 3 hypotheses" in shown
    assert "| xkd | above ae | student video | +5.0 [+2.5, +7.5] | 5.0 | 0.02 | supported | – |" in text
    assert text.index("## Verdicts") < text.index("| ablation | video |")
    assert html.index('<section id="verdicts">') == html.index("<section")


def test_without_expectations_the_page_says_so(project, figures):
    assert "nothing to judge" in project.html(figures)
    assert verdict_table(judged(collect(project.params))).empty


def test_one_seed_decides_nothing(expecting):
    expecting.values["seeds"] = [1]
    found = lines(expecting)
    assert {(line.verdict, line.reason) for line in found.values()} == {("undecided", "one seed")}
    assert found["xkd", COLUMN].difference == 6
    assert "undecided: one seed" in expecting.markdown()


def test_a_column_that_no_evaluation_gave_is_undecided(expecting):
    expecting.values["ablations"]["recon_video"]["expects"] = [
        {"than": "ae", "columns": ["student.audio.linear", "student.both.linear"], "direction": "equal within 1.0"}
    ]
    found = lines(expecting)
    assert found["recon_video", "student.audio.linear"].reason == "no figures of recon_video"
    assert found["recon_video", "student.both.linear"].reason == "no figures of recon_video and ae"
    assert "student.both.linear" in expecting.markdown()


@pytest.fixture
def run_strictly(expecting, monkeypatch):
    """Returns a function that runs `xkd table --strict` with one file for all, and returns its exit code and tags."""
    tags = {}

    def start(*arguments):
        tags.update(arguments[4])
        return nullcontext(SimpleNamespace(log_files=lambda files: None))

    def call():
        (expecting.root / "params.yaml").write_text(yaml.safe_dump(expecting.values))
        monkeypatch.setattr(sys, "argv", ["xkd", "table", "--out", "results", "--strict", "--quiet"])
        monkeypatch.setattr(stage, "_make", lambda *arguments: (arguments[-1] / "table.csv").write_text("made"))
        monkeypatch.setattr(stage.tracking, "start", start)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, tags

    return call


def test_strict_holds_what_the_settings_record(expecting, run_strictly, capsys):
    code, tags = run_strictly()
    assert not code
    assert tags["verdict.xkd.above.ae.student.video.linear"] == "supported"
    assert capsys.readouterr().err == ""


def test_strict_names_each_verdict_that_differs_after_the_files_are_written(expecting, run_strictly, capsys):
    expecting.values["ablations"]["xkd"]["expects"][0]["verdict"] = "contradicted"
    code, _ = run_strictly()
    assert code == 3
    assert (expecting.root / "results" / "table.csv").read_text() == "made"
    assert capsys.readouterr().err.splitlines() == [
        "xkd: xkd above ae in student.video.linear: supported, on record as contradicted",
        "xkd: xkd above ae in student.audio.linear: undecided (the difference is the same for all seeds), "
        "on record as contradicted",
    ]
