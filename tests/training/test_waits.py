"""What a step of any ablation asks of a device: nothing that the host has to wait for."""

from pathlib import Path

import pytest
import torch
from tiny_runs import StubLoader
from waits import Waits

from xkd.params import load, recipe
from xkd.training.build import build_networks
from xkd.training.pretraining import pretrainer

PARAMS = load(Path(__file__).parents[2] / "params.yaml")
TRAINED = [name for name in PARAMS.ablations if recipe(PARAMS, name).training.mode != "none"]


@pytest.mark.parametrize(
    ("ablation", "precision"),
    [("xkd", "float32"), ("xkd", "float16"), *((name, "bfloat16") for name in TRAINED)],
)
def test_a_step_waits_for_nothing(ablation, precision):
    chosen = recipe(PARAMS, ablation)
    model = chosen.model.model_copy(update={"width": 12, "depth": 1})
    training = chosen.training.model_copy(update={"precision": precision, "batch_size": 4})
    chosen = chosen.model_copy(update={"model": model, "training": training})
    loader = StubLoader(chosen)
    one = pretrainer(chosen, build_networks(chosen, 0), loader, 0)
    inputs = one.learner.inputs(next(iter(loader)), 0)
    with Waits() as waits:
        one.update(inputs)
    assert waits.found == []
    assert waits.copied == 0


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.isfinite().all()),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
        lambda x: x + torch.tensor([1.0]),
    ],
)
def test_what_would_wait_is_found(waiting):
    with Waits() as waits:
        waiting(torch.ones(3))
    assert waits.found
