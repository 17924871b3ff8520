"""The loop on a stub loader: resuming, stopping on a bad loss, determinism, export."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from run_folders import seal
from tiny_runs import curves, same, settings, train, trainer

from xkd.errors import UserError
from xkd.training.build import build_networks
from xkd.training.export import load_encoders, save_encoders, weights_files
from xkd.training.recorder import STEP_TIMES

GOLDEN = pd.read_csv(Path(__file__).parent / "golden_curve.csv")


def test_two_runs_of_a_seed_are_identical_and_seeds_differ():
    first, second, other = (train(trainer(settings(), seed)) for seed in (0, 0, 1))
    assert same(first, second)
    pd.testing.assert_frame_equal(curves(first), curves(second), check_exact=True)
    assert not same(first, other)


@pytest.mark.parametrize("mode", ["pretrain", "supervised"])
def test_starting_weights_depend_on_the_seed_alone(mode):
    """Whatever else has drawn from the global generator before, in this process or another."""
    states = []
    for drawn in (0, 5):
        torch.manual_seed(drawn)
        states.append(trainer(settings(mode=mode)).learner.objective.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_losses_of_twenty_steps_are_those_of_the_committed_curve():
    """Written by `train(trainer(settings(epochs=10)), ...)`; a change of any number is a change of the method."""
    got = curves(train(trainer(settings(epochs=10))))[list(GOLDEN.columns)]
    pd.testing.assert_frame_equal(got, GOLDEN, rtol=1e-3, check_exact=False)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_losses_of_float32(precision):
    exact, low = (curves(train(trainer(settings(precision=p)))).iloc[0] for p in ("float32", precision))
    for term in ("reconstruction_video", "reconstruction_audio", "distillation_video", "distillation_audio"):
        assert low[term] == pytest.approx(exact[term], rel=0.03)
        assert low[term] != exact[term]


def test_curves_hold_every_term_and_diagnostic():
    row = pd.DataFrame(train(trainer(settings())).recorder.epochs).iloc[-1]
    expected = {"loss", "learning_rate", "ema_momentum", "gradient_norm", *STEP_TIMES}
    for name in (
        "reconstruction",
        "distillation",
        "teacher_temperature",
        "teacher_entropy",
        "centre_norm",
        "feature_spread",
    ):
        expected |= {f"{name}_video", f"{name}_audio"}
    expected |= {"alignment_students", "alignment_teachers"}
    assert expected <= set(row.index)
    assert row[sorted(expected)].notna().all()
    weighted = 5 * (row.reconstruction_video + row.reconstruction_audio) / 2
    weighted += (row.distillation_video + row.distillation_audio) / 2
    weighted += (row.alignment_students + row.alignment_teachers) / 2
    assert row.loss == pytest.approx(weighted / 7, rel=1e-5)


def test_supervised_training_lowers_its_loss():
    chosen = settings(mode="supervised", epochs=15, learning_rate=0.01, warmup_epochs=0)
    losses = [row["loss"] for row in train(trainer(chosen)).recorder.epochs]
    assert losses[0] == pytest.approx(0.69, abs=0.2)
    assert losses[-1] < losses[0] - 0.2


def test_exported_encoders_give_the_features_of_the_trained_ones(tmp_path):
    chosen = settings()
    one = train(trainer(chosen))
    save_encoders(one.learner.networks, chosen, 0, tmp_path)
    seal(tmp_path)
    encoders = load_encoders(tmp_path)
    assert set(encoders) == {(o, m) for o in ("student", "teacher") for m in ("video", "audio")}
    view = torch.randn(2, 1, chosen.logmel.n_mels, chosen.views.audio_global.frames)
    for owner, networks in (("student", one.learner.networks.students), ("teacher", one.learner.networks.teachers)):
        expected = networks["audio"].features(view).detach()
        torch.testing.assert_close(encoders[owner, "audio"].features(view), expected, rtol=0, atol=0)


def test_weights_are_found_beside_the_marks_that_snakemake_leaves(tmp_path):
    chosen = settings()
    save_encoders(trainer(chosen).learner.networks, chosen, 0, tmp_path)
    seal(tmp_path)
    (tmp_path / "encoders" / ".snakemake_timestamp").touch()
    found = weights_files(tmp_path)
    assert found.keys() == load_encoders(tmp_path).keys()
    assert all(path.is_file() for path in found.values())


def test_a_missing_run_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="no finished run here; make it with"):
        load_encoders(tmp_path)


def test_only_cross_modal_terms_need_teachers_and_all_ablations_start_alike():
    xkd, ae = settings("xkd"), settings("ae")
    assert xkd.has_teachers
    assert not ae.has_teachers
    starts = [build_networks(chosen, 3).students.state_dict() for chosen in (xkd, ae)]
    assert all(torch.equal(starts[0][k], starts[1][k]) for k in starts[0])
