"""The real training step on fake CUDA tensors: one device, no wait for the GPU, and the memory that `xkd plan` says."""

from pathlib import Path

import pytest
import torch
from fake_cuda import fake_cuda, saved_bytes
from torch._subclasses.fake_tensor import DataDependentOutputException

from xkd import params
from xkd.data.loader import Batch
from xkd.data.views import TrainViews
from xkd.downstream.features import outputs_of
from xkd.downstream.finetune import finetuner
from xkd.plan.footprint import finetuning_memory, memory
from xkd.plan.shapes import view_shapes
from xkd.training import faults
from xkd.training.build import build_networks
from xkd.training.pretraining import pretrainer

ROOT = Path(__file__).parents[2]
SETTINGS, PAPER = (params.load(ROOT / name) for name in ("params.yaml", "workflow/presets/paper.yaml"))
CLIPS = 8


class Loader:
    """A loader's length and classes."""

    classes = ("one", "two", "three")

    def __len__(self):
        return 4


def recipe_of(settings, ablation, **training):
    recipe = params.recipe(settings, ablation)
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"batch_size": CLIPS, **training})})


def batch_of(recipe):
    views = {m: [torch.empty(CLIPS, *shape) for shape in shapes] for m, shapes in view_shapes(recipe).items()}
    return Batch([f"clip{n}" for n in range(CLIPS)], torch.zeros(CLIPS, dtype=torch.long), views)


def without_values(recipe):
    with torch.device("meta"):
        return build_networks(recipe, 0)


def devices(module):
    return {tensor.device.type for tensor in [*module.parameters(), *module.buffers()]}


def test_the_fake_gpu_notices_what_it_is_for():
    with fake_cuda():
        there = torch.empty(3, device="cuda")
        with pytest.raises(RuntimeError, match="device"):
            there + torch.empty(3)
        with pytest.raises(DataDependentOutputException):
            there.sum().item()
        with pytest.raises(DataDependentOutputException):
            bool(there.isfinite().all())


@pytest.mark.parametrize(
    ("ablation", "precision", "accumulate"),
    [(name, "bfloat16", 1) for name in SETTINGS.ablations if name != "random_init"]
    + [("xkd", "float32", 1), ("xkd", "float16", 2), ("supervised", "float16", 1), ("xkd", "bfloat16", 2)],
)
def test_a_step_stays_on_the_gpu_and_never_waits_for_it(ablation, precision, accumulate, monkeypatch):
    # Read one step late, by an event of the driver.
    monkeypatch.setattr(faults, "fetched", lambda flags: lambda: [False] * len(flags))
    recipe = recipe_of(SETTINGS, ablation, precision=precision, accumulate=accumulate)
    with fake_cuda():
        trainer = pretrainer(recipe, without_values(recipe), Loader(), 0)
        assert devices(trainer.learner) == {"cuda"}
        for _ in range(2):
            trainer.take_step(batch_of(recipe))
        moments = [v for state in trainer.optimiser.state.values() for v in state.values() if v.ndim]
        assert {tensor.device.type for tensor in moments} == {"cuda"}


@pytest.mark.parametrize(("ablation", "precision"), [
    ("xkd", "bfloat16"), ("xkd", "float32"), ("xkd_mas", "bfloat16"), ("ae", "bfloat16"), ("supervised", "bfloat16"),
])  # fmt: skip
def test_the_plan_knows_the_activations_of_a_step_at_the_papers_width(ablation, precision):
    recipe = recipe_of(shallow(PAPER), ablation, precision=precision)
    with fake_cuda():
        trainer = pretrainer(recipe, without_values(recipe), Loader(), 0)
        inputs = trainer.learner.inputs(batch_of(recipe), 0)
        views = [view for of in inputs.views.values() for view in of]
        with saved_bytes([*trainer.learner.parameters(), *views]) as saved:
            trainer.update(inputs)
    assert memory(recipe).activations - sum(view.nbytes for view in views) == pytest.approx(saved[0], rel=0.1)


def shallow(settings):
    """Three blocks instead of twelve: the plan multiplies."""
    model = settings.model.model_copy(update={"depth": 3})
    return settings.model_copy(update={"model": model})
