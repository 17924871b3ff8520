"""Terms, discrepancies and refinements of plugins train, are shared, resumed, logged and reported as ours are."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from forks import code_of, group
from shared_runs import assert_same, result, shared_trainer
from tiny_runs import MINIATURE, curves, same, train, trainer

from xkd import params
from xkd.errors import UserError
from xkd.logged import LoggedColumn
from xkd.objectives.term import Outputs, RunSizes, Term, Values
from xkd.plan.arithmetic import step_flops
from xkd.registry import discrepancies, refinements, terms
from xkd.report.curves import COLUMNS_TYPE
from xkd.training import checkpoint, distributed
from xkd.training.objective import OWN_COLUMNS, Objective

PLUGINS = [str(Path(__file__).parents[1] / "plugins" / name) for name in ("barlow.py", "more_terms.py")]
ROWS = {
    "barlow": {"objective": {"barlow": {"weight": 2.0, "redundancy": 0.1}}},
    "off": {"objective": {"barlow": 0}},
    "barlow_alone": {"objective": {"reconstruction": 0, "distillation": 0, "alignment": 0, "barlow": 1}},
    "guess": {"objective": {"guess": 1, "distillation": 0, "alignment": 0}},
    "others": {"objective": {"discrepancy": "means", "refinement": "first_head"}},
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings that extend the miniature by rows of plugins."""
    rows = {name: {"hypothesis": "plugin", "changes": changes} for name, changes in ROWS.items()}
    path = tmp_path_factory.mktemp("settings") / "params.yaml"
    path.write_text(yaml.safe_dump({"extends": str(MINIATURE), "plugins": PLUGINS, "ablations": rows}))
    return params.load(path)


@pytest.fixture
def recipe(settings):
    def chosen(row, **training):
        found = params.recipe(settings, row)
        changes = {"epochs": 3, "checkpoint_epochs": 1, **training}
        return found.model_copy(update={"training": found.training.model_copy(update=changes)})

    return chosen


def barlow_by_hand(video, audio, redundancy):
    """Numpy's correlation coefficients of every pair of logits, one by one."""
    total = 0.0
    for i in range(video.shape[1]):
        for j in range(video.shape[1]):
            entry = np.corrcoef(video[:, i], audio[:, j])[0, 1]
            total += (1 - entry) ** 2 if i == j else redundancy * entry**2
    return total


def test_the_example_computes_barlow_twins(recipe):
    draws = np.random.default_rng(0)
    video, audio = draws.normal(3, 2, (12, 5)), draws.normal(size=(12, 5))
    term = terms["barlow"](recipe("barlow").objective.plugged["barlow"], RunSizes(("video", "audio"), 4, 5))
    rows = {"video": torch.from_numpy(video), "audio": torch.from_numpy(audio)}
    got = term(Outputs(student_RK=rows)).losses["barlow"]
    assert got.item() == pytest.approx(barlow_by_hand(video, audio, 0.1), rel=1e-9)


def test_it_is_weighed_like_our_own_terms(recipe):
    row = curves(train(trainer(recipe("barlow"), seed=0))).iloc[0]
    weighted = 5 * (row.reconstruction_video + row.reconstruction_audio) / 2 + 2 * row.barlow
    weighted += (row.distillation_video + row.distillation_audio) / 2
    weighted += (row.alignment_students + row.alignment_teachers) / 2
    assert row.loss == pytest.approx(weighted / 9, rel=1e-5)


def test_it_trains_alone_with_heads_and_its_loss_falls(recipe):
    losses = curves(train(trainer(recipe("barlow_alone", epochs=15, learning_rate=1e-3, warmup_epochs=0)))).barlow
    assert losses.iloc[-2:].mean() < 0.9 * losses.iloc[:2].mean()


def test_weight_0_computes_nothing(recipe, monkeypatch):
    monkeypatch.setattr(terms["barlow"], "forward", lambda *_: pytest.fail("computed"))
    assert "barlow" not in curves(train(trainer(recipe("off"))))


@pytest.mark.parametrize("row", ["barlow", "guess", "others"])
def test_parts_give_the_losses_and_weights_of_the_whole_batch(recipe, row):
    whole, parts = (result(train(shared_trainer(recipe(row, epochs=2, batch_size=8, accumulate=n)))) for n in (1, 2))
    assert_same(parts, whole)


def test_processes_give_the_losses_and_weights_of_the_whole_batch(recipe, tmp_path):
    rows = ("barlow", "guess")

    def work():
        with distributed.joined() as ranks:
            found = {r: result(train(shared_trainer(recipe(r, epochs=2, batch_size=8), ranks))) for r in rows}
            torch.save(found, tmp_path / f"rank{ranks.rank}.pt")

    children = group(work, tmp_path)
    assert [code_of(child) for child in children] == [0, 0], (tmp_path / "rank0.txt").read_text()
    for row in rows:
        wanted = result(train(shared_trainer(recipe(row, epochs=2, batch_size=8))))
        for rank in range(2):
            assert_same(torch.load(tmp_path / f"rank{rank}.pt")[row], wanted, curves=rank == 0)


@pytest.mark.parametrize("row", ["barlow", "guess"])
def test_a_resumed_run_equals_an_uninterrupted_one(recipe, tmp_path, row):
    whole, halted = train(trainer(recipe(row))), trainer(recipe(row))
    train(halted, stop_after=1, save=lambda state: checkpoint.keep(tmp_path, {}, {}, state))
    resumed = trainer(recipe(row))
    resumed.load_state_dict(checkpoint.unfinished(tmp_path, {}))
    assert resumed.step == 2
    assert same(whole, train(resumed))
    pd.testing.assert_frame_equal(curves(whole), curves(resumed), check_exact=True)


def test_parameters_of_a_term_start_from_the_seed_and_are_trained(recipe):
    torch.manual_seed(5)
    one, again = (trainer(recipe("guess"), seed=1).learner.objective.terms["guess"].layer.weight for _ in range(2))
    assert torch.equal(one, again)
    trained = train(trainer(recipe("guess"), seed=1)).learner.objective.terms["guess"].layer.weight
    assert not torch.equal(one, trained)


def test_columns_of_a_plugin_stand_after_ours_in_the_curves(recipe, tmp_path):
    train(trainer(recipe("guess"))).recorder.write(tmp_path, [column.name for column in OWN_COLUMNS])
    for file in ("steps.csv", "history.csv"):
        table = pd.read_csv(tmp_path / file)
        assert list(table.columns[-3:]) == ["clips_per_second", "guess", "guess_size"]
        assert table["guess"].notna().all()
        assert table["distillation_video"].isna().all()


def test_a_row_has_what_the_terms_of_its_plugins_need(recipe, monkeypatch):
    alone = recipe("barlow_alone")
    assert alone.has_teachers
    assert alone.reconstructed == ()
    assert not recipe("guess").has_teachers
    monkeypatch.setattr(terms["barlow"], "needs_decoders", True)
    assert alone.reconstructed == ("video", "audio")


def test_its_arithmetic_is_planned(recipe):
    chosen = recipe("barlow", batch_size=4)
    part = next(part for part in step_flops(chosen).parts if part.name == "barlow")
    rows, logits = 4 * (1 + chosen.views.local_views), chosen.model.head.out
    assert part.forward == 2 * rows * logits**2
    assert part.backward == 2 * part.forward


def test_a_discrepancy_and_a_refinement_of_a_plugin_are_used(recipe):
    x, y = torch.tensor([[1.0, 2.0], [3.0, 2.0]]), torch.tensor([[0.0, 0.0]])
    assert discrepancies["means"](x, y).item() == 8
    assert refinements["first_head"](torch.arange(12.0).view(1, 2, 6), torch.ones(1, 2, 3)).tolist() == [
        [0, 1, 2, 3, 4, 5]
    ]
    ours, theirs = (curves(train(trainer(recipe(row), seed=0))) for row in ("off", "others"))
    assert (ours.alignment_students != theirs.alignment_students).all()
    assert (ours.teacher_entropy_video != theirs.teacher_entropy_video).all()


def test_what_a_term_logs_must_be_declared_and_its_own(recipe):
    class Loud(Term):
        columns = (LoggedColumn("loss", "the same name"),)

        def forward(self, outputs):
            return Values({"quiet": next(iter(outputs.features_BD.values())).mean()})

    one, name = trainer(recipe("off")), "loud"
    made = (one.learner.networks, one.learner.recipe.objective, {name: 1.0}, RunSizes(("video", "audio"), 4, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(terms._entries, name, Loud)
        with pytest.raises(UserError, match="two terms log a column 'loss'"):
            Objective(*made)
        patch.setattr(Loud, "columns", (LoggedColumn("loud", "loud"),))
        with pytest.raises(UserError, match="term loud: logs 'quiet', which is none of its `columns`"):
            Objective(*made)(Outputs(features_BD={"video": torch.ones(2, 2)}))


def test_columns_can_be_written_down_and_read_again(recipe):
    columns = trainer(recipe("guess")).learner.objective.columns
    written = json.loads(json.dumps([asdict(column) for column in columns]))
    assert COLUMNS_TYPE.validate_python(written) == list(columns)
