import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from xkd.downstream.finetune_learner import Classifier, layer_groups
from xkd.settings import Finetune, ObjectiveSettings, Training
from xkd.training.optimiser import clip_each, make_optimiser
from xkd.training.schedules import cosine, linear_then_constant, schedules


def test_learning_rate_rises_from_0_then_falls_by_a_cosine_to_0():
    values = cosine(1e-3, 0.0, 100, warmup=10)
    assert values[0] == 0
    assert values[5] == pytest.approx(5e-4)
    assert values[10] == pytest.approx(1e-3)
    assert values[55] == pytest.approx(5e-4)
    assert 0 < values[-1] < 1e-6
    assert len(values) == 100


def test_ema_momentum_ends_next_to_1():
    values = cosine(0.995, 1.0, 50)
    assert values[0] == pytest.approx(0.995)
    assert values[25] == pytest.approx(0.9975)
    assert np.all(np.diff(values) > 0)
    assert values[-1] < 1


def test_temperature_warms_up_and_stays():
    values = linear_then_constant(0.04, 0.06, 30, warmup=10)
    assert values[0] == pytest.approx(0.04)
    assert values[5] == pytest.approx(0.05)
    assert values[10:].tolist() == pytest.approx([0.06] * 20)


def test_a_warmup_longer_than_the_run_is_cut_off():
    training = SimpleNamespace(epochs=2, warmup_epochs=30, peak_learning_rate=1.0, ema=(0.9, 1.0))
    objective = SimpleNamespace(
        temperature_warmup_epochs=30, teacher_temperature_video=(0.1, 0.2), teacher_temperature_audio=(0.1, 0.1)
    )
    arrays = schedules(training, objective, steps_per_epoch=5)
    assert {len(a) for a in arrays.values()} == {10}
    assert np.all(np.diff(arrays["learning_rate"]) > 0)


def test_the_learning_rate_follows_the_batch_where_it_is_for_batches_of_a_size():
    one, other = Training(batch_size=512, learning_rate=1e-4), Finetune(batch_size=32, learning_rate=1e-3)
    assert (one.peak_learning_rate, other.peak_learning_rate) == (1e-4, 1e-3)
    one, other = (of.model_copy(update={"base_batch_size": 128}) for of in (one, other))
    assert (one.peak_learning_rate, other.peak_learning_rate) == (4e-4, 2.5e-4)
    assert one.learning_rate_rule == "learning rate 0.0004: 0.0001, times 512 / 128 clips"
    assert schedules(one, ObjectiveSettings(), 10)["learning_rate"].max() == pytest.approx(4e-4)
    groups = layer_groups(Classifier(SimpleEncoder(), 2, seed=0), other)
    assert max(group["peak"] for group in groups) == 2.5e-4


class SimpleEncoder(nn.Module):
    width = 2

    @property
    def layers(self):
        return []


def test_weight_decay_spares_vectors_and_biases():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    model.token = nn.Parameter(torch.zeros(1, 1, 4))
    model.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)
    decayed, others = make_optimiser(model, 1e-3, (0.9, 0.95), 0.3).param_groups
    assert decayed["weight_decay"] == 0.3
    assert {tuple(p.shape) for p in decayed["params"]} == {(4, 3), (1, 1, 4)}
    assert others["weight_decay"] == 0
    assert len(others["params"]) == 3


def test_each_gradient_is_clipped_on_its_own():
    small, large, unused = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    small.grad, large.grad = torch.tensor([0.1, 0.0]), torch.tensor([3.0, 4.0])
    norm = clip_each([small, large, unused], 0.3)
    torch.testing.assert_close(small.grad, torch.tensor([0.1, 0.0]))
    torch.testing.assert_close(large.grad, torch.tensor([0.18, 0.24]), rtol=1e-5, atol=0)
    assert norm.item() == pytest.approx(math.hypot(0.1, 5.0))
