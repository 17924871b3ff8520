"""params.yaml: what is refused and how it is said; the shipped files; the schema."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from xkd import params
from xkd.errors import UserError
from xkd.settings import Clips, LogMel, Model, ObjectiveSettings, Training, Views

ROOT = Path(__file__).parents[1]
PRESETS = sorted((ROOT / "workflow" / "presets").glob("*.yaml"))
MINIATURE = ROOT / "workflow" / "presets" / "miniature.yaml"


@pytest.fixture
def settings():
    return yaml.safe_load(MINIATURE.read_text())


@pytest.fixture
def load(tmp_path):
    def write_and_load(values):
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(values))
        return params.load(path)

    return write_and_load


def _set(values, dotted, value):
    *groups, key = dotted.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[key] = value


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("training.epocs", 3, ["training.epocs", "did you mean 'epochs'"]),
        ("modle", {}, ["modle", "did you mean 'model'"]),
        ("views.video_global.sise", 32, ["views.video_global.sise", "did you mean 'size'"]),
        ("training.epochs", "many", ["training.epochs", "'many'"]),
        ("training.epochs", 0, ["training.epochs", "0"]),
        ("seeds", [], ["seeds"]),
        ("seeds", [1, 1], ["seeds", "once"]),
        ("seeds", "012", ["seeds"]),
        ("dataset", "miniatur", ["miniatur", "did you mean 'miniature'"]),
        ("ablations.ae.dataset", "miniatur", ["ablations.ae.dataset", "did you mean 'miniature'"]),
        ("report.baseline", "aee", ["report.baseline", "did you mean 'ae'"]),
        ("tasks.finetune.ablations", ["xkdd"], ["xkdd", "did you mean 'xkd'"]),
        ("ablations.ae.changes", {"objectiv": {}}, ["ablations.ae.changes", "did you mean 'objective'"]),
        ("ablations.ae.changes", {"clips": {}}, ["ablations.ae.changes", "clips", "per ablation"]),
        ("ablations.ae.changes.objective.refinment", "none", ["ablations.ae", "did you mean 'refinement'"]),
        ("ablations.ae.changes.objective.refinement", "median", ["ablations.ae", "refinement", "'median'"]),
        ("ablations.ae.hypothesis", "", ["ablations.ae.hypothesis"]),
        ("ablations.a-b", {"hypothesis": "x"}, ["a-b"]),
        ("ablations.1", {"hypothesis": "x"}, ["1"]),
        ("model.video_patch", [4, 9, 8], ["video_patch"]),
        ("model.heads", 3, ["heads"]),
        ("tasks.knn", {"protocol": "linear"}, ["tasks.knn", "tasks.linear", "share a column"]),
        ("objective.mask_video", 0.99, ["mask_video", "0.99 of 32 patches leaves none visible"]),
        ("objective.mask_audio", 0.001, ["mask_audio", "hides none"]),
        ("resources.pretrain", {"gpu": 1}, ["resources.pretrain.gpu", "did you mean 'gpus'"]),
        ("resources.evaluate", {"nodes": 2}, ["resources.evaluate.nodes"]),
        ("resources.pretrain", {"gpus": 3}, ["resources.pretrain", "3 processes", "20 clips", "ae"]),
        ("resources.protocols.finetun", {"gpus": 1}, ["'resources.protocols.finetun'", "did you mean 'finetune'"]),
        ("resources.protocols.finetune", {"gpu": 1}, ["resources.protocols.finetune.gpu", "did you mean 'gpus'"]),
        ("resources.protocols.finetune", {"gpus": 3}, ["protocols.finetune", "3 processes", "20 clips", "finetune"]),
        ("ablations.ae.resources", {"gpus": 3}, ["ablations.ae.resources", "3 processes", "20 clips"]),
        ("ablations.ae.resources", {"gpu": 3}, ["ablations.ae.resources.gpu", "did you mean 'gpus'"]),
        ("resources.protocols.linear", {"processes": 2}, ["protocols.linear", "several processes", "only finetune"]),
    ],
)
def test_bad_settings_are_one_line_that_names_the_key(settings, load, key, value, words):
    _set(settings, key, value)
    with pytest.raises(UserError) as error:
        load(settings)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in ["params.yaml", *words]), message


GOOD = {"than": "ae", "columns": ["student.video.linear"], "direction": "above"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"than": "aee"}, ["ablations.xkd.expects", "no ablation 'aee'", "did you mean 'ae'"]),
        ({"than": "xkd"}, ["ablations.xkd.expects", "compared with itself"]),
        ({"columns": ["student.vidoe.linear"]}, ["'student.vidoe.linear'", "did you mean 'student.video.linear'"]),
        ({"columns": ["student.video.finetune"]}, ["xkd and ae do not both have 'student.video.finetune'"]),
        ({"columns": ["teacher.video.linear"]}, ["xkd and ae do not both have 'teacher.video.linear'"]),
        ({"columns": ["student.video.linear"] * 2}, ["listed twice"]),
        ({"columns": []}, ["ablations.xkd.expects", "columns"]),
        ({"direction": "over"}, ["direction", "above, below, or 'equal within 1.0'", "'over'"]),
        ({"direction": "equal within 0"}, ["direction", "'equal within 0'"]),
        ({"direction": "equal within 1e9"}, ["direction"]),
        ({"verdict": "true"}, ["verdict", "'supported'", "'true'"]),
        ({"directions": "above"}, ["directions", "did you mean 'direction'"]),
    ],
)
def test_an_expectation_that_no_table_can_judge_is_one_line(settings, load, changed, words):
    settings["ablations"]["xkd"]["expects"] = [GOOD]
    assert load(settings).ablations["xkd"].expects[0].direction == "above"
    settings["ablations"]["xkd"]["expects"] = [GOOD | changed]
    with pytest.raises(UserError) as error:
        load(settings)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


def test_a_file_that_takes_a_row_or_a_task_away_takes_what_was_expected_of_it(settings, tmp_path):
    xkd = settings["ablations"]["xkd"]
    settings["ablations"] |= {"other": {"hypothesis": "x"}}
    xkd["expects"] = [GOOD, GOOD | {"than": "other", "columns": ["student.video.linear", "student.video.knn"]}]
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(settings))
    child = tmp_path / "child.yaml"

    def expected(text):
        child.write_text(f"extends: base.yaml\n{text}")
        return [(one.than, *one.columns) for one in params.load(child).ablations["xkd"].expects]

    both = ("other", "student.video.linear", "student.video.knn")
    assert expected("seeds: [5]\n") == [("ae", "student.video.linear"), both]
    assert expected("ablations: {other: null}\n") == [("ae", "student.video.linear")]
    assert expected("tasks: {linear: {ablations: [ae, xkd]}}\n") == [("ae", "student.video.linear")]
    with pytest.raises(UserError, match="child.yaml: ablations.xkd.expects: no ablation 'other'"):
        expected("ablations: {other: null, xkd: {expects: [{than: other, columns: [a.b.c], direction: above}]}}\n")


def test_a_missing_group_is_named(settings, load):
    del settings["objective"]
    with pytest.raises(UserError, match="'objective' is missing"):
        load(settings)


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "not valid YAML"), ("just words", "expected settings"), ("", "expected settings")]
)
def test_files_that_are_no_settings(tmp_path, text, words):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        params.load(path)


def test_unknown_ablation_suggests_a_name(settings, load):
    with pytest.raises(UserError, match="no ablation 'xdk'; did you mean 'xkd'"):
        params.recipe(load(settings), "xdk")


def test_ablation_changes_lie_over_the_base(settings, load):
    settings["objective"] = {"reconstruction": 3, "alignment": 2}
    recipe = params.recipe(load(settings), "ae")
    assert (recipe.objective.reconstruction, recipe.objective.alignment, recipe.objective.distillation) == (3, 0, 0)


def test_a_row_on_another_data_set_differs_in_nothing_else(settings, load):
    settings["datasets"]["other"] = settings["datasets"]["miniature"] | {"test_clips": 0}
    settings["ablations"]["ae"]["dataset"] = "other"
    loaded = load(settings)
    assert params.datasets_in_use(loaded) == ["miniature", "other"]
    del settings["ablations"]["ae"]["dataset"]
    there, here = (params.recipe(one, "ae").model_dump() for one in (loaded, load(settings)))
    assert there.pop("dataset") == "other"
    assert here.pop("dataset") == "miniature"
    assert there == here


def test_a_data_set_of_the_table_that_nothing_uses_is_refused(settings, load):
    settings["datasets"]["other"] = settings["datasets"]["miniature"]
    for row in settings["ablations"].values():
        row["dataset"] = "other"
    load(settings)
    for task in settings["tasks"].values():
        task["dataset"] = "other"
    with pytest.raises(UserError, match="dataset: no row is pretrained on 'miniature', and no task"):
        load(settings)


def test_settings_are_frozen(settings, load):
    with pytest.raises(ValueError, match="frozen"):
        load(settings).training.epochs = 3


def test_a_file_extends_another_key_by_key(tmp_path):
    (tmp_path / "more.yaml").write_text(f"extends: {MINIATURE}\ntraining: {{epochs: 9}}\nseeds: [7]\n")
    base, more = params.load(MINIATURE), params.load(tmp_path / "more.yaml")
    assert (more.training.epochs, more.seeds) == (9, (7,))
    assert more.training.batch_size == base.training.batch_size
    assert more.ablations == base.ablations


def test_null_takes_away_what_the_extended_file_has(tmp_path):
    (tmp_path / "less.yaml").write_text(
        f"extends: {MINIATURE}\nablations: {{xkd: null}}\ntasks: {{finetune: {{ablations: []}}}}\n"
    )
    assert set(params.load(tmp_path / "less.yaml").ablations) == set(params.load(MINIATURE).ablations) - {"xkd"}


def test_a_protocol_asks_for_what_all_evaluations_ask_for_and_its_own(settings, load):
    settings["resources"] = {
        "evaluate": {"gpus": 2, "cpus": 3, "runtime": 7},
        "protocols": {"finetune": {"cpus": 8, "gpus": 4}},
    }
    resources = load(settings).resources
    linear, finetune = map(resources.of_protocol, ("linear", "finetune"))
    assert (linear.gpus, linear.cpus, linear.runtime, linear.all_processes) == (2, 3, 7, 1)
    assert (finetune.gpus, finetune.cpus, finetune.runtime, finetune.all_processes) == (4, 8, 7, 4)


def test_an_ablation_asks_for_what_pretraining_asks_for_and_its_own(settings, load):
    settings["resources"] = {"pretrain": {"gpus": 4, "cpus": 8}}
    settings["ablations"]["ae"]["resources"] = {"gpus": 1}
    loaded = load(settings)
    xkd, ae = (params.pretrain_request(loaded, name) for name in ("xkd", "ae"))
    assert (xkd.gpus, xkd.cpus, xkd.all_processes) == (4, 8, 4)
    assert (ae.gpus, ae.cpus, ae.all_processes) == (1, 8, 1)


def test_equal_settings_give_equal_text(settings, load):
    recipe = params.recipe(load(settings), "xkd")
    settings["training"] = dict(reversed(settings["training"].items()))
    assert params.canonical(params.recipe(load(settings), "xkd")) == params.canonical(recipe)


def test_schema_file_is_in_step():
    committed = json.loads((ROOT / "workflow" / "schemas" / "params.schema.json").read_text())
    assert committed == params.schema(), "run: python -m xkd schema --out workflow/schemas/params.schema.json"


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *PRESETS], ids=lambda path: path.stem)
def test_shipped_settings_load_and_fit_the_schema(path):
    loaded = params.load(path)
    jsonschema.validate(loaded.model_dump(mode="json"), params.schema())
    assert all(params.recipe(loaded, name).ablation == name for name in loaded.ablations)


def test_the_schema_refuses_what_the_models_refuse(settings):
    settings["training"]["epocs"] = 3
    with pytest.raises(jsonschema.ValidationError, match="epocs"):
        jsonschema.validate(settings, params.schema())


def test_paper_preset_is_the_released_setting():
    """Whatever params.yaml holds, the preset ends at the released values, which are the defaults."""
    paper = params.load(ROOT / "workflow" / "presets" / "paper.yaml")
    for group, model in (("clips", Clips), ("logmel", LogMel), ("views", Views)):
        assert getattr(paper, group) == model()
    assert (paper.model, paper.objective) == (Model(), ObjectiveSettings())
    machine = {"precision", "workers", "queue_gb", "augment", "probe_epochs"}
    assert paper.training.model_dump(exclude=machine) == Training().model_dump(exclude=machine)
    mas = params.recipe(paper, "xkd_mas")
    assert (mas.model.share, mas.views.local_views, mas.objective.temperature_warmup_epochs) == ("students", 3, 30)
    assert mas.objective.teacher_temperature_video == (0.09, 0.11)
    assert mas.objective.teacher_temperature_audio == (0.04, 0.06)


def test_controls_share_every_setting_of_a_run_but_the_data():
    base = params.load(ROOT / "params.yaml")
    preset = params.load(ROOT / "workflow" / "presets" / "controls.yaml")
    assert preset.evaluate.linear == base.evaluate.linear
    for row in ("xkd", "ae"):
        usual = params.recipe(base, row).model_dump(exclude={"ablation", "dataset"})
        control = params.recipe(preset, f"{row}_unpaired")
        assert control.model_dump(exclude={"ablation", "dataset"}) == usual
        usual, other = base.datasets["talking_digits"], preset.datasets[control.dataset]
        assert other == usual.model_copy(update={"paired": False, "test_clips": 0})


def test_rows_get_the_tasks_that_their_encoders_can_do():
    """The paper's preset judges sounds, pictures and both; some of its rows have encoders of one modality."""
    paper = params.load(ROOT / "workflow" / "presets" / "paper.yaml")
    video, audio, every = (set(params.tasks_of(paper, row)) for row in ("recon_video", "recon_audio", "xkd"))
    assert every == set(paper.tasks)
    assert video & audio == {"kinetics_sound_svm"}
    assert video | audio == every - {"kinetics_sound_retrieval"}
    assert "ucf101_svm" in video
    assert "esc50_finetune" in audio
    as_sounds = {"ucf101": paper.datasets["ucf101"].model_copy(update={"require": "audio"})}
    sounds = paper.model_copy(update={"datasets": paper.datasets | as_sounds})
    assert "ucf101_svm" not in params.tasks_of(sounds, "xkd")
