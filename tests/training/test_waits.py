"""A step asks nothing of the device: no value, no shape that depends on values, no copy that the host waits for."""

from pathlib import Path

import pytest
import torch
import yaml
from tiny_runs import MINIATURE, StubLoader
from torch._subclasses.fake_tensor import FakeTensorMode
from waits import Waits

from xkd import params
from xkd.downstream.finetune import finetuner
from xkd.downstream.finetune_learner import Classifiers, layer_groups
from xkd.settings import Finetune, Params
from xkd.training.build import build_networks
from xkd.training.pretraining import Pretraining, pretrainer

ROOT = Path(__file__).parents[2]
OURS = yaml.safe_load((ROOT / "params.yaml").read_text())["ablations"]
SMALL = Params.model_validate(
    yaml.safe_load(MINIATURE.read_text()) | {"ablations": OURS, "tasks": {"linear": {"protocol": "linear"}}}
)
TRAINED = [name for name in OURS if params.recipe(SMALL, name).training.mode != "none"]


def waits_of(one):
    """Of two steps as on a GPU, where outcomes are read later."""
    one.faults._late = 2
    one.loader.set_epoch(0)
    batches = list(one.loader)
    with Waits() as waits:
        for batch in batches:
            one.take_step(batch)
            one.batch += 1
    assert one.batch == 2
    return waits.found


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("ablation", TRAINED)
def test_no_ablation_waits_for_the_device(ablation, precision):
    recipe = params.recipe(SMALL, ablation)
    training = recipe.training.model_copy(update={"precision": precision, "batch_size": 4, "accumulate": 2})
    recipe = recipe.model_copy(update={"training": training})
    assert waits_of(pretrainer(recipe, build_networks(recipe, 0), StubLoader(recipe), 0)) == []


@pytest.mark.parametrize("kind", ["xkd", "finetune"])
def test_no_copy_of_a_batch_to_the_device_is_waited_for(kind):
    """On tensors without values that are on a GPU; there need not be one."""
    recipe = params.recipe(SMALL, "xkd")
    networks, loader = build_networks(recipe, 0), StubLoader(recipe)
    if kind == "xkd":
        learner = Pretraining(recipe, networks, loader, 0)
    else:
        learner = Classifiers(dict(networks.students.items()), loader, Finetune(batch_size=4, dropout=0.5), 0)
    batch = next(iter(loader))
    with FakeTensorMode(allow_non_fake_inputs=True):
        learner.to("cuda")
        with Waits() as waits:
            inputs = learner.inputs(batch, 0)
    views = [view for of in inputs.views.values() for view in (of if isinstance(of, list) else [of])]
    assert {view.device.type for view in views} == {"cuda"}
    assert waits.copied >= len(views) + 3, "labels, and orders of patches or what dropout keeps of each modality"
    assert waits.found == []


def finetuning(monkeypatch, **changes):
    recipe = params.recipe(SMALL, "xkd")

    def as_on_a_gpu(self):
        groups = [group for model in self.models.values() for group in layer_groups(model, self.settings)]
        return torch.optim.AdamW(groups, fused=True)

    monkeypatch.setattr(Classifiers, "optimiser", as_on_a_gpu)
    encoders = dict(build_networks(recipe, 0).students.items())
    return finetuner(encoders, StubLoader(recipe), Finetune(batch_size=4, epochs=2, **changes), 0)


def test_finetuning_does_not_either(monkeypatch):
    assert waits_of(finetuning(monkeypatch, dropout=0.5)) == []


def test_a_step_that_waits_is_found(monkeypatch):
    one = finetuning(monkeypatch)
    monkeypatch.setattr(
        type(one.learner), "held_parameters", lambda self, inputs: [] if inputs.views["video"].sum() else []
    )
    assert waits_of(one) == 2 * ["aten::_local_scalar_dense"]


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: bool(x.isfinite().all()),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
        lambda x: x + torch.tensor([1.0]),
    ],
)
def test_operations_that_wait_are_found(waiting):
    with Waits() as waits:
        waiting(torch.ones(3))
    assert waits.found
