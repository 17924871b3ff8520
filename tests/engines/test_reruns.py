"""Reruns after each kind of edit, in both engines. Stages are stand-ins; settings, fingerprints and rules are real."""

import os

import pytest
import yaml
from engine_project import Project, row_of

EVERYTHING = sorted(["download", "prepare", *row_of("ae"), *row_of("xkd", finetune=True), "table"])
AE_AND_TABLE = sorted([*row_of("ae"), "table"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project in which everything ran once, by Snakemake."""
    project = Project(tmp_path_factory.mktemp("engines") / "project", standins=True)
    assert project.run("snakemake") == EVERYTHING
    return project


@pytest.fixture
def project(finished):
    """The finished project; what a test edits is undone after it."""
    kept = {path: path.read_text() for name in ("params.yaml", "xkd") for path in _files(finished.root / name)}
    yield finished
    for path, text in kept.items():
        path.write_text(text)


def test_a_finished_run_leaves_nothing_to_do(project):
    assert project.planned() == []
    assert project.run("snakemake") == []


def test_either_engine_before_or_after_the_other(finished, tmp_path):
    """DVC from a clean clone makes the same table, and neither engine redoes what the other did."""
    project = Project(tmp_path / "project", standins=True)
    assert project.run("dvc") == EVERYTHING
    assert _texts(project.root / "results") == _texts(finished.root / "results")
    assert project.run("snakemake") == []
    _change_ablation(project, mask_video=0.5)
    assert project.run("dvc") == AE_AND_TABLE
    assert _texts(project.root / "results") != _texts(finished.root / "results")
    assert project.run("snakemake") == []
    _change_ablation(project, mask_video=0.6)
    assert project.run("snakemake") == AE_AND_TABLE
    assert project.run("dvc") == []
    _remove_ablation(project, "xkd")
    assert project.run("dvc") == ["table"]
    assert " xkd " not in (project.root / "results" / "table.csv").read_text()


def test_files_that_appear_change_or_vanish_in_a_folder_of_clips_are_noticed(tmp_path):
    """By either engine; what does not use them is not run again, and nothing is where their content stays the same."""
    project = Project(tmp_path / "project", standins=True)
    clips = project.root / "mine" / "dog"
    clips.mkdir(parents=True)
    (clips / "a.wav").write_text("1")
    settings = project.settings()
    settings["datasets"]["mine"] = {"kind": "folder", "source": "mine"}
    settings["tasks"]["mine"] = {"protocol": "linear", "dataset": "mine", "ablations": ["xkd"]}
    settings["ablations"]["on_mine"] = {"hypothesis": "x", "dataset": "mine"}
    project.write(settings | {"seeds": [0]})
    again = [
        *("download", "evaluate on_mine seed0 linear", "evaluate xkd seed0 mine"),
        *("prepare", "pretrain on_mine 0", "table"),
    ]
    assert set(again) < set(project.run("dvc"))
    assert project.run("dvc") == []
    assert project.planned() == []
    (clips / "b.wav").write_text("2")
    assert project.planned() == again
    assert project.run("dvc") == again
    assert project.run("snakemake") == []
    (clips / "b.wav").write_text("3")
    assert project.run("snakemake") == again
    assert project.run("dvc") == []
    os.utime(clips / "a.wav")
    assert project.run("dvc") == ["download", "prepare"]
    assert project.run("snakemake") == []
    (clips / "a.wav").unlink()
    assert project.planned() == again


def test_shared_training_setting_reruns_all_but_the_data(project):
    settings = project.settings()
    settings["training"]["epochs"] += 1
    project.write(settings)
    assert project.planned() == [job for job in EVERYTHING if job not in ("download", "prepare")]


def test_settings_that_only_say_how_to_train_do_not_retrain(project):
    settings = project.settings()
    settings["training"] |= {"workers": 1, "accumulate": 2, "checkpoint_minutes": 1, "checkpoint_activations": True}
    project.write(settings)
    assert project.planned() == ["table"]


def test_protocol_setting_reruns_that_protocol(project):
    settings = project.settings()
    settings["evaluate"]["finetune"]["epochs"] += 1
    project.write(settings)
    assert project.planned() == ["evaluate xkd seed0 finetune", "evaluate xkd seed1 finetune", "table"]


def test_finetuning_one_ablation_more_reruns_nothing_else(project):
    settings = project.settings()
    settings["tasks"]["finetune"]["ablations"] = ["ae", "xkd"]
    project.write(settings)
    assert project.planned() == ["evaluate ae seed0 finetune", "evaluate ae seed1 finetune", "table"]


def test_texts_rerun_the_table_only(project):
    settings = project.settings()
    settings["ablations"]["ae"]["hypothesis"] = "Another wording."
    settings["ablations"]["xkd"]["expects"] = [
        {"than": "ae", "columns": ["student.video.linear"], "direction": "above"}
    ]
    project.write(settings)
    assert project.planned() == ["table"]


def test_order_and_comments_of_settings_rerun_nothing(project):
    settings = project.settings()
    settings["training"] = dict(reversed(settings["training"].items()))
    project.write(settings)
    (project.root / "params.yaml").write_text("# a comment\n" + (project.root / "params.yaml").read_text())
    assert project.planned() == []


def test_resources_rerun_nothing(project):
    asked = {"gpus": 1, "processes": 2, "cpus": 3, "memory_gb": 1.5, "runtime": 7}
    settings = project.settings() | {"resources": {"pretrain": asked, "evaluate": {"cpus": 2}, "table": {"runtime": 9}}}
    project.write(settings)
    assert project.planned() == []


def test_new_ablation_runs_its_own_row(project):
    settings = project.settings()
    settings["ablations"]["ae_da"] = {"hypothesis": "x", "changes": {"objective": {"distillation": 0}}}
    project.write(settings)
    assert project.planned() == sorted([*row_of("ae_da"), "table"])


def test_a_row_on_another_data_set_reruns_with_that_one_alone(project):
    """Its run lies below its own data set, so that a table of that one finds it."""
    settings = {
        "extends": "params.yaml",
        "results": "results/other",
        "seeds": [0],
        "datasets": {"other": project.settings()["datasets"]["miniature"] | {"test_clips": 0}},
        "ablations": {"ae_other": {"hypothesis": "Other clips.", "dataset": "other"}},
    }
    path = project.root / "more.yaml"
    path.write_text(yaml.safe_dump(settings))
    of_the_row = ["download", "evaluate ae_other seed0 linear", "prepare", "pretrain ae_other 0", "table"]
    assert project.run("snakemake", XKD_PARAMS="more.yaml") == of_the_row
    assert (project.root / "runs" / "other" / "ae_other" / "seed0" / "files.json").exists()
    assert "miniature" in (project.root / "evals" / "miniature" / "ae_other" / "seed0" / "linear.json").read_text()
    assert project.planned(XKD_PARAMS="more.yaml") == []
    assert project.planned() == []
    there = {"results": "results/there", "dataset": "other", "ablations": {"ae_other": {"dataset": None}}}
    (project.root / "there.yaml").write_text(yaml.safe_dump({"extends": "more.yaml"} | there))
    planned = project.planned(XKD_PARAMS="there.yaml")
    assert "evaluate ae_other seed0 linear" in planned
    assert "pretrain xkd 0" in planned
    assert "pretrain ae_other 0" not in planned
    settings["datasets"]["other"]["seed"] = 1
    path.write_text(yaml.safe_dump(settings))
    assert project.planned(XKD_PARAMS="more.yaml") == of_the_row


def test_a_preset_with_more_seeds_trains_only_those(project):
    preset = "extends: params.yaml\nseeds: [0, 1, 2]\nresults: results/more\n"
    (project.root / "more.yaml").write_text(preset)
    added = [*row_of("ae", [2]), *row_of("xkd", [2], finetune=True), "table"]
    assert project.planned(XKD_PARAMS="more.yaml") == sorted(added)


def test_words_for_people_in_code_rerun_nothing(project):
    project.edit("xkd/models/vit.py", '"""', '"""Another docstring. ')
    project.edit("xkd/training/loop.py", "import time\n", "import time  # a comment\n")
    project.edit("xkd/settings/evaluation.py", 'description="', 'description="Another description. ')
    project.edit("xkd/data/manifest.py", "no such manifest", "no manifest here")
    assert project.planned() == []


def test_report_code_does_not_retrain(project):
    project.edit("xkd/report/csv_table.py", "import", "import colorsys\nimport")
    assert project.planned() == ["table"]


def test_report_template_reruns_the_table(project):
    template = next((project.root / "xkd" / "report" / "templates").iterdir())
    template.write_text(template.read_text() + " ")
    assert project.planned() == ["table"]
    template.write_text(template.read_text()[:-1])


def test_evaluation_code_does_not_retrain(project):
    project.edit("xkd/downstream/knn.py", "import", "import colorsys\nimport")
    assert project.planned() == [job for job in EVERYTHING if job.startswith(("evaluate", "table"))]


def test_objective_code_retrains(project):
    project.edit("xkd/objectives/alignment.py", "import torch\n", "import colorsys\nimport torch\n")
    assert set(row_of("xkd")) <= set(project.planned())


def test_settings_on_the_command_line_are_refused(project):
    done = project.snakemake("--config", "report={}")
    assert done.returncode != 0
    assert "do not pass --config" in (done.stdout + done.stderr).lower()


def test_typo_in_settings_is_one_line_and_touches_nothing(project):
    before = _texts(project.root / "results")
    project.edit("params.yaml", "epochs:", "epocs:")
    done = project.snakemake()
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "xkd: error: params.yaml: unknown key 'evaluate.finetune.epocs'"
    ) or ("did you mean 'epochs'?" in done.stderr)
    assert _texts(project.root / "results") == before


def test_failing_stage_shows_its_one_line_and_keeps_other_results(project):
    _change_ablation(project, mask_video=0.5)
    before = (project.root / "runs" / "miniature" / "xkd" / "seed0" / "metrics.json").read_text()
    done = project.snakemake(XKD_STANDIN_FAILS="pretrain")
    assert done.returncode == 1
    assert "xkd: error: stand-in failed" in done.stdout + done.stderr
    assert (project.root / "runs" / "miniature" / "xkd" / "seed0" / "metrics.json").read_text() == before


def test_lint_and_format(project):
    lint = project.call("snakemake", "--lint")
    assert lint.returncode == 0, lint.stdout + lint.stderr
    assert "good condition" in lint.stdout + lint.stderr
    assert project.call("snakefmt", "--check", "Snakefile", "workflow").returncode == 0


def _change_ablation(project, **objective):
    settings = project.settings()
    settings["ablations"]["ae"]["changes"]["objective"].update(objective)
    project.write(settings)


def _remove_ablation(project, name):
    settings = project.settings()
    del settings["ablations"][name]
    settings["tasks"]["finetune"]["ablations"] = []
    project.write(settings)


def _files(path):
    return [p for p in path.rglob("*.py")] if path.is_dir() else [path]


def _texts(folder):
    return {path.relative_to(folder): path.read_text() for path in folder.rglob("*") if path.is_file()}
