"""The real training step on fake CUDA tensors: one device, no wait for the GPU, and the memory that `xkd plan` says."""

from functools import partial

import few_clips
import pytest
import torch
from fake_cuda import fake_cuda, saved_bytes
from few_clips import CLIPS, PAPER, SETTINGS, Loader
from torch._subclasses.fake_tensor import DataDependentOutputException

from xkd import params
from xkd.data.loader import Batch
from xkd.data.views import TrainViews
from xkd.downstream.finetune_learner import Classifiers
from xkd.modalities.base import draw_table
from xkd.plan.footprint import finetuning_memory, memory
from xkd.plan.shapes import view_shapes
from xkd.training import faults
from xkd.training.build import build_networks
from xkd.training.loop import Trainer
from xkd.training.pretraining import pretrainer

# AdamW on tensors without values does not know learning rates that are tensors.
recipe_of = partial(few_clips.recipe_of, cuda_graphs=False)


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


@pytest.mark.parametrize(("task", "modality", "precision"), [
    ("kinetics400_finetune", "video", "bfloat16"), ("kinetics400_finetune", "video", "float32"),
    ("esc50_finetune", "audio", "bfloat16"),
])  # fmt: skip
def test_finetuning_stays_on_the_gpu_and_keeps_what_the_plan_says(task, modality, precision):
    """The paper's recipe: RandAugment, erasing, mixup and cutmix, or masks of log-mels."""
    recipe = params.with_views(recipe_of(shallow(PAPER), "xkd"), PAPER, task)
    settings = params.protocol(PAPER, task).model_copy(update={"batch_size": CLIPS, "precision": precision})
    networks = without_values(recipe)
    batch = batch_of(recipe)
    with fake_cuda():
        with torch.device("meta"):
            learner = Classifiers({modality: networks.students[modality]}, Loader(), settings, 0)
        trainer = Trainer(learner, Loader(), settings, recipe.training)
        inputs = learner.inputs(batch, 0)
        views = inputs.views[modality]
        assert {views.device.type, inputs.targets[modality].device.type} == {"cuda"}
        with saved_bytes([*learner.parameters(), views]) as saved:
            trainer.update(inputs)
    told = finetuning_memory(recipe, [modality], settings, 1)
    assert told.activations == pytest.approx(saved[0], rel=0.1)
    assert told.weights == pytest.approx(sum(p.nbytes for p in learner.parameters()), rel=0.01)


def test_augmentation_on_the_gpu_never_waits_for_it():
    """The cuts and draws of `TrainViews.cut`, as a loader brings them."""
    recipe = recipe_of(PAPER, "xkd")
    views, shapes = TrainViews(recipe), view_shapes(recipe)
    drawn = draw_table(2, torch.Generator(), 0).shape
    with fake_cuda():
        frames = [torch.empty(CLIPS, s[1], 3, *s[2:], dtype=torch.uint8, device="cuda") for s in shapes["video"]]
        power = [torch.empty(CLIPS, *shape, device="cuda") for shape in shapes["audio"]]
        made = views.finish({"video": frames, "audio": power}, torch.empty(CLIPS, *drawn, device="cuda"))
        assert {m: [tuple(view.shape[1:]) for view in of] for m, of in made.items()} == shapes
        assert {(view.device.type, view.dtype) for of in made.values() for view in of} == {("cuda", torch.float32)}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_features_stay_on_the_gpu(precision):
    recipe = recipe_of(SETTINGS, "xkd")
    networks, kind = without_values(recipe), getattr(torch, precision)
    with fake_cuda(), torch.inference_mode(), torch.autocast("cuda", kind, enabled=precision != "float32"):
        for modality, encoder in networks.to("cuda").students.items():
            features = encoder.features(torch.empty(CLIPS, *view_shapes(recipe)[modality][0], device="cuda"))
            assert (features.device.type, features.shape) == ("cuda", (CLIPS, recipe.model.width))
