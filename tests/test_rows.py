"""Sweeps and further data sets become rows: their names, their settings, and what is refused."""

from pathlib import Path

import pytest
import yaml

from xkd import params
from xkd.errors import UserError
from xkd.rows import named, rows_of

ROOT = Path(__file__).parents[1]
MINIATURE = ROOT / "workflow" / "presets" / "miniature.yaml"
MASK = {"key": "objective.mask_video", "values": [0.3, 0.85], "of": ["ae", "xkd"]}  # 0.85 is the miniature's own value


@pytest.fixture
def loaded(tmp_path):
    """Returns a function that loads the miniature with sweeps and with other changes."""

    def load(changes=None, **sweeps) -> params.Params:
        base = yaml.safe_load(MINIATURE.read_text())
        path = tmp_path / "swept.yaml"
        path.write_text(yaml.safe_dump(params.merge(base, (changes or {}) | {"sweeps": sweeps}), sort_keys=False))
        return params.load(path)

    return load


def rows(settings) -> dict[tuple, str]:
    return {(point.sweep, point.of, *point.values): point.row for point in settings.points}


def test_each_value_of_each_row_is_a_row_and_the_rows_own_value_is_the_row(loaded):
    settings = loaded(mask=MASK)
    assert list(settings.ablations) == ["ae", "xkd", "ae_mask_0_3", "xkd_mask_0_3"]
    assert rows(settings)["mask", "xkd", 0.85] == "xkd"
    assert rows(settings)["mask", "ae", 0.85] == "ae"
    swept, base = (params.recipe(settings, name) for name in ("ae_mask_0_3", "ae"))
    assert swept.objective == base.objective.model_copy(update={"mask_video": 0.3})
    assert swept.training == base.training


def test_equal_settings_are_one_row_however_they_are_written(loaded):
    """A default, a whole number for a fraction, another row's settings, another sweep's."""
    changes = {"ablations": {"less": {"hypothesis": "x", "changes": {"objective": {"mask_video": 0.5}}}}}
    again = {"key": "objective.mask_video", "values": [0.3, 0.5], "of": ["xkd"]}
    weight = {"key": "objective.reconstruction", "values": [5, 2.5], "of": ["xkd"]}
    grid = {"grid": {"objective.mask_video": [0.3, 0.85], "objective.mask_audio": [0.8, 0.5]}, "of": ["xkd"]}
    found = rows(loaded(changes, mask=MASK, again=again, weight=weight, grid=grid))
    assert found["again", "xkd", 0.3] == "xkd_mask_0_3"
    assert found["again", "xkd", 0.5] == "less"
    assert found["weight", "xkd", 5] == "xkd"
    assert found["weight", "xkd", 2.5] == "xkd_weight_2_5"
    assert found["grid", "xkd", 0.3, 0.8] == "xkd_mask_0_3"
    assert found["grid", "xkd", 0.85, 0.8] == "xkd"
    assert found["grid", "xkd", 0.85, 0.5] == "xkd_grid_0_85__0_5"


def test_settings_that_only_say_how_to_train_make_no_row(loaded):
    settings = loaded(workers={"key": "training.workers", "values": [0, 1, 2], "of": ["xkd"]})
    assert set(rows(settings).values()) == {"xkd"}


def test_added_rows_carry_what_belongs_to_the_row_but_not_the_papers_figures(loaded):
    asked = {"ablations": {"xkd": {"resources": {"gpus": 1}}}}
    row = loaded(asked, mask={**MASK, "hypothesis": "Few patches suffice."}).ablations["xkd_mask_0_3"]
    assert row.resources.gpus == 1
    assert row.paper is None
    assert row.hypothesis == "Sweep mask: objective.mask_video=0.3 in the row xkd. Few patches suffice."


def test_tasks_may_name_a_row_of_a_sweep(loaded):
    settings = loaded({"tasks": {"finetune": {"ablations": ["xkd", "xkd_mask_0_3"]}}}, mask=MASK)
    assert params.tasks_of(settings, "xkd_mask_0_3") == ["linear", "finetune"]
    assert params.tasks_of(settings, "ae_mask_0_3") == ["linear"]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0.3, "0_3"),
        (1.0, "1"),
        (1e-05, "0_00001"),
        (1e6, "1000000"),
        (-2, "minus_2"),
        ([0.99, 1.0], "0_99__1"),
        ([[1, 2], []], "1__2__empty"),
        (True, "true"),
        (None, "none"),
        ("mmd-2", "mmd_2"),
        ({"weight": 0.5}, "weight_0_5"),
    ],
)
def test_names_of_values_can_be_names_of_files_and_rows(value, name):
    assert named(value) == name


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ({**MASK, "key": "objective.mask_vido"}, "unknown key 'objective.mask_vido'; did you mean 'mask_video'?"),
        (
            {**MASK, "key": "objectiv.mask_video"},
            "'objectiv' cannot be changed per ablation; did you mean 'objective'?",
        ),
        ({**MASK, "values": [0.3, 1.5]}, "sweeps.mask: objective.mask_video=1.5 in ae: 'objective.mask_video': "),
        ({**MASK, "values": ["0.3"]}, "sweeps.mask: objective.mask_video=0.3 in ae: 'objective.mask_video': "),
        ({**MASK, "key": "objective.mask_video.x"}, "'objective.mask_video': Input should be a valid number"),
        ({**MASK, "key": "epochs"}, "'sweeps.mask.key': "),
        ({**MASK, "of": ["xdk"]}, "sweeps.mask.of: no ablation 'xdk'; did you mean 'xkd'?"),
        ({**MASK, "values": [0.3, 0.5, 0.3]}, "objective.mask_video: 0.3 is listed twice"),
        ({**MASK, "values": []}, "'sweeps.mask.values': "),
        ({**MASK, "keys": ["a", "b"]}, "unknown key 'sweeps.mask.keys'; did you mean 'key'?"),
        ({"key": "objective.mask_video", "of": ["xkd"]}, "give `key` and `values`, or `grid: "),
        ({**MASK, "grid": {"objective.mask_video": [0.3], "objective.mask_audio": [0.3]}}, "or `grid: "),
        ({"grid": {"objective.mask_video": [0.3]}, "of": ["xkd"]}, "'sweeps.mask.grid': "),
        ({"key": "training.ema", "values": [[0.9]], "of": ["xkd"]}, "sweeps.mask: training.ema=[0.9] in xkd: "),
    ],
)
def test_a_mistake_names_the_sweep_and_the_value(loaded, sweep, says):
    with pytest.raises(UserError) as refused:
        loaded(mask=sweep)
    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_two_rows_of_one_name_are_refused(loaded):
    written = {"ablations": {"xkd_mask_0_3": {"hypothesis": "x", "changes": {"training": {"epochs": 3}}}}}
    with pytest.raises(
        UserError, match="sweeps.mask: objective.mask_video=0.3 in xkd: makes a row 'xkd_mask_0_3', but"
    ):
        loaded(written, mask=MASK)
    with pytest.raises(UserError, match="longer than 100 characters"):
        loaded(**{"m" * 97: MASK})


OTHER = {"datasets": {"other": {"kind": "talking_digits"}}}


def test_further_data_sets_are_rows(loaded):
    changes = OTHER | {"ablations": {"ae": {"datasets": ["miniature", "other"]}}}
    settings = loaded(changes, mask={**MASK, "of": ["ae_on_other"]})
    assert list(settings.ablations) == ["ae", "ae_on_other", "xkd", "ae_on_other_mask_0_3"]
    assert params.recipe(settings, "ae").dataset == "miniature"
    assert params.recipe(settings, "ae_on_other").dataset == "other"
    assert params.recipe(settings, "ae_on_other").objective == params.recipe(settings, "ae").objective
    assert params.recipe(settings, "ae_on_other_mask_0_3").dataset == "other"
    assert rows_of(settings, "ae") == ["ae", "ae_on_other"]
    assert rows_of(settings, "xkd") == ["xkd"]


def test_a_row_on_another_data_set_expects_nothing(loaded):
    """Its figures come from other data, so what its hypothesis says of them is another question."""
    expects = [{"than": "ae", "columns": ["student.video.linear"], "direction": "above"}]
    settings = loaded(OTHER | {"ablations": {"xkd": {"datasets": ["other"], "expects": expects}}})
    assert len(settings.ablations["xkd"].expects) == 1
    assert settings.ablations["xkd_on_other"].expects == ()


def test_unknown_data_sets_and_taken_names_are_refused(loaded):
    with pytest.raises(UserError, match="ablations.ae.datasets: 'othr' is not in datasets; did you mean 'other'?"):
        loaded(OTHER | {"ablations": {"ae": {"datasets": ["othr"]}}})
    taken = {"ae": {"datasets": ["other"]}, "ae_on_other": {"hypothesis": "x"}}
    with pytest.raises(UserError, match="ablations.ae.datasets: makes a row 'ae_on_other', but"):
        loaded(OTHER | {"ablations": taken})
