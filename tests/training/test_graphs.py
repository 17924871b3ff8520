"""Steps as recordings. CUDA is replaced by what calls the recorded function again; `test_gpu.py` needs the real one."""

from copy import deepcopy

import pandas as pd
import pytest
import torch
from tiny_runs import curves, settings, train, trainer

from xkd.errors import UserError
from xkd.training import graphs
from xkd.training.graphs import WARM_UP, GraphedStep


class Recordings:
    """Stands in for CUDA graphs: to record runs nothing, to replay fills the results of the recording anew."""

    def __init__(self, one):
        self.one, self.replays = one, []

    def __call__(self, function, _pool):
        learner, optimiser = self.one.learner, self.one.optimiser
        states = deepcopy((learner.state_dict(), optimiser.state_dict()))
        names, values = function()
        learner.load_state_dict(states[0])
        optimiser.load_state_dict(states[1])
        self.replays.append(0)
        number = len(self.replays) - 1

        def replay():
            self.replays[number] += 1
            values.copy_(function()[1])

        return replay, (names, values)


@pytest.fixture
def graphed(monkeypatch):
    """Makes a trainer whose steps are recorded, and what counts the replays."""
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")

    def make(chosen, **loader):
        one = trainer(chosen, **loader)
        recordings = Recordings(one)
        monkeypatch.setattr(graphs, "recorded", recordings)
        one._take = GraphedStep(one.update)
        return one, recordings

    return make


@pytest.mark.parametrize("ablation", ["xkd", "ae"])
def test_replayed_steps_follow_every_schedule(ablation, graphed):
    """Learning rate, momentum and temperatures change with each step, views and masks too."""
    chosen = settings(ablation, epochs=6, warmup_epochs=2, learning_rate=0.01, ema=(0.5, 1.0))
    objective = {"teacher_temperature_video": (0.05, 0.2), "temperature_warmup_epochs": 5}
    chosen = chosen.model_copy(update={"objective": chosen.objective.model_copy(update=objective)})
    one, recordings = graphed(chosen)
    got = curves(train(one))
    pd.testing.assert_frame_equal(got, curves(train(trainer(chosen))), rtol=2e-4, atol=1e-7, check_exact=False)
    assert recordings.replays == [12 - WARM_UP]


def test_steps_that_hold_the_last_layer_are_recorded_on_their_own(graphed):
    chosen = settings(epochs=6, freeze_last_layer_epochs=2)
    one, recordings = graphed(chosen)
    pd.testing.assert_frame_equal(
        curves(train(one)), curves(train(trainer(chosen))), rtol=2e-4, atol=1e-7, check_exact=False
    )
    assert recordings.replays == [4 - WARM_UP, 8 - WARM_UP]


def test_checkpoints_hold_learning_rates_as_numbers(graphed):
    one, _ = graphed(settings(epochs=4))
    states = []
    train(one, save=states.append)
    assert all(isinstance(group["lr"], float) for group in states[-1]["optimiser"]["param_groups"])
    assert not any(group["capturable"] for group in states[-1]["optimiser"]["param_groups"])


def test_a_step_that_cannot_be_recorded_says_what_to_do(graphed, monkeypatch):
    one, _ = graphed(settings(epochs=4))

    def fails(function, pool):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graphs, "recorded", fails)
    with pytest.raises(UserError, match=r"stream is capturing\); with training.cuda_graphs: false"):
        train(one)
    assert one.step == WARM_UP


def test_a_replayed_step_that_is_not_finite_is_counted_and_changes_nothing(graphed):
    one, recordings = graphed(settings(epochs=5, skip_budget=0.2), poisoned_step=6)
    train(one)
    assert recordings.replays == [10 - WARM_UP]
    assert (one.faults.skipped, one.faults.faulty) == (1, 1)
    assert all(p.isfinite().all() for p in one.learner.parameters())
