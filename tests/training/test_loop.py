"""The loop on a stub loader: resuming, stopping on a bad loss, determinism, export."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from run_folders import seal

from xkd.errors import UserError
from xkd.params import load, recipe
from xkd.training.build import build_networks
from xkd.training.export import load_encoders, save_encoders, weights_files
from xkd.training.loop import Trainer
from xkd.training.recorder import TIMES

MINIATURE = Path(__file__).parents[2] / "workflow" / "presets" / "miniature.yaml"
CLASSES = ("one", "two")
GOLDEN = pd.read_csv(Path(__file__).parent / "golden_curve.csv")


@dataclass
class Batch:
    ids: list
    labels: torch.Tensor
    views: dict


class StubLoader:
    """Two random batches an epoch, the same for the same epoch; one may be poisoned."""

    classes = CLASSES

    def __init__(self, recipe, poisoned_step=None):
        self.views, self.mels = recipe.views, recipe.logmel.n_mels
        self.poisoned_step, self.epoch, self.first = poisoned_step, 0, 0

    def __len__(self):
        return 2

    def set_epoch(self, epoch, first=0):
        self.epoch, self.first = epoch, first

    def __iter__(self):
        for index in range(self.first, 2):
            generator = torch.Generator().manual_seed(10 * self.epoch + index)
            video = [
                torch.randn(4, 3, v.frames, v.size, v.size, generator=generator)
                for v in (self.views.video_global, self.views.video_local)
            ]
            audio = [
                torch.randn(4, 1, self.mels, v.frames, generator=generator)
                for v in (self.views.audio_global, self.views.audio_local)
            ]
            if self.epoch * 2 + index == self.poisoned_step:
                audio[0][2, 0, 0, 0] = float("nan")
            labels = torch.tensor([0, 1, 0, 1])
            for view in (video[0], audio[0]):
                view[labels == 1] += 1.0
            ids = [f"clip{self.epoch}{index}{n}" for n in range(4)]
            yield Batch(ids, labels, {"video": video, "audio": audio})


def settings(ablation="xkd", **training):
    params = load(MINIATURE)
    chosen = recipe(params, ablation)
    return chosen.model_copy(
        update={"training": chosen.training.model_copy(update={"epochs": 3, "checkpoint_epochs": 1, **training})}
    )


def trainer(chosen, seed=0, **loader):
    return Trainer(chosen, build_networks(chosen, seed), StubLoader(chosen, **loader), seed)


def train(one, stop_after=None, save=lambda state: None):
    for done, _ in enumerate(one.epochs(save), start=1):
        if done == stop_after:
            break
    return one


def same(first, second):
    states = first.objective.state_dict(), second.objective.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def curves(one):
    return pd.DataFrame(one.recorder.steps).drop(columns=list(TIMES))


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
        states.append(trainer(settings(mode=mode)).objective.state_dict())
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
    expected = {"loss", "learning_rate", "ema_momentum", "gradient_norm", *TIMES}
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
    save_encoders(one.networks, chosen, 0, tmp_path)
    seal(tmp_path)
    encoders = load_encoders(tmp_path)
    assert set(encoders) == {(o, m) for o in ("student", "teacher") for m in ("video", "audio")}
    view = torch.randn(2, 1, chosen.logmel.n_mels, chosen.views.audio_global.frames)
    for owner, networks in (("student", one.networks.students), ("teacher", one.networks.teachers)):
        expected = networks["audio"].features(view).detach()
        torch.testing.assert_close(encoders[owner, "audio"].features(view), expected, rtol=0, atol=0)


def test_weights_are_found_beside_the_marks_that_snakemake_leaves(tmp_path):
    chosen = settings()
    save_encoders(trainer(chosen).networks, chosen, 0, tmp_path)
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
