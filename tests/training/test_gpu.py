"""What only a GPU can show. All are skipped where there is none; `test_fake_cuda.py` runs everywhere."""

import pandas as pd
import pytest
import torch
from few_clips import CLIPS, PAPER, SETTINGS, Loader, recipe_of
from tiny_runs import StubLoader, curves, settings, train, trainer

from xkd import params
from xkd.data.loader import Batch
from xkd.data.views import TrainViews
from xkd.modalities.base import DRAWS
from xkd.plan.footprint import memory
from xkd.plan.shapes import view_shapes
from xkd.training import loop
from xkd.training.build import build_networks
from xkd.training.pretraining import pretrainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

TRAINED = [name for name in SETTINGS.ablations if params.recipe(SETTINGS, name).training.mode != "none"]


def batch_of(recipe, seed=0):
    generator, shapes = torch.Generator().manual_seed(seed), view_shapes(recipe)
    views = {m: [torch.randn(CLIPS, *shape, generator=generator) for shape in shapes[m]] for m in shapes}
    return Batch([f"clip{n}" for n in range(CLIPS)], torch.arange(CLIPS) % 3, views)


def steps(recipe, count=3):
    one = pretrainer(recipe, build_networks(recipe, 0), Loader(), 0)
    for number in range(count):
        one.take_step(batch_of(recipe, number))
        one.batch += 1
        if one.batch == len(one.loader):
            one.epoch, one.batch = one.epoch + 1, 0
    one.recorder.end_epoch(0, {})
    return one


@pytest.fixture
def on_the_cpu(monkeypatch):
    """Lets trainers use the CPU while entered."""

    def enter():
        monkeypatch.setattr(loop, "device", lambda: torch.device("cpu"))

    return enter


@pytest.mark.parametrize("ablation", TRAINED)
def test_losses_are_those_of_the_cpu(ablation, on_the_cpu):
    recipe = recipe_of(SETTINGS, ablation)
    gpu = curves(steps(recipe))
    on_the_cpu()
    pd.testing.assert_frame_equal(gpu, curves(steps(recipe)), rtol=2e-4, atol=1e-6, check_exact=False)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("ablation", TRAINED)
def test_no_step_waits_for_the_gpu(ablation, precision):
    recipe = recipe_of(SETTINGS, ablation, precision=precision, accumulate=2)
    one = steps(recipe, 5)  # as a graph by now, but for float16
    batch = batch_of(recipe)
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(2):
            one.take_step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_runs_repeat_and_resume_up_to_rounding(precision):
    """Not to the bit: some kernels add up in an order that changes."""
    chosen, rtol = settings(precision=precision), 1e-3 if precision == "float32" else 3e-2
    whole, again = (curves(train(trainer(chosen))) for _ in range(2))
    pd.testing.assert_frame_equal(whole, again, rtol=rtol, atol=1e-5, check_exact=False)
    first = []
    train(trainer(chosen), stop_after=1, save=lambda state: first.append(on_the_host(state)))
    resumed = trainer(chosen)
    resumed.load_state_dict(first[0])
    assert resumed.epoch == 1
    pd.testing.assert_frame_equal(whole, curves(train(resumed)), rtol=rtol, atol=1e-5, check_exact=False)


def on_the_host(value):
    """Copies a state as a file would hold it."""
    if isinstance(value, torch.Tensor):
        return value.cpu().clone()
    if isinstance(value, dict):
        return {key: on_the_host(one) for key, one in value.items()}
    return type(value)(map(on_the_host, value)) if isinstance(value, (list, tuple)) else value


def test_a_step_that_is_not_finite_changes_nothing():
    one = train(trainer(settings(skip_budget=1.0), poisoned_step=3))
    assert (one.faults.skipped, one.faults.faulty) == (1, 1)
    assert torch.isfinite(torch.cat([p.detach().flatten() for p in one.learner.parameters()])).all()


@pytest.mark.parametrize("ablation", ["xkd", "ae", "xkd_mas", "supervised"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_plan_knows_the_memory_of_a_step_at_the_papers_width(ablation, precision):
    model = PAPER.model.model_copy(update={"depth": 4})
    recipe = recipe_of(PAPER.model_copy(update={"model": model}), ablation, precision=precision)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    one = steps(recipe, 6)
    assert one.step == 6
    taken = torch.cuda.max_memory_allocated() - before
    assert memory(recipe).total == pytest.approx(taken, rel=0.15)


def test_views_that_the_gpu_augments_are_those_of_the_cpu():
    recipe = recipe_of(PAPER, "xkd")
    views, generator = TrainViews(recipe), torch.Generator().manual_seed(0)
    cuts = {
        "video": [
            torch.randint(0, 256, (CLIPS, v.frames, 3, v.size, v.size), dtype=torch.uint8, generator=generator)
            for v in views.settings["video"]
        ],
        "audio": [
            torch.rand(CLIPS, 1, recipe.logmel.n_mels, v.frames, generator=generator) for v in views.settings["audio"]
        ],
    }
    draws = torch.rand(CLIPS, 2, 2, DRAWS, generator=generator)
    there, draws_there = {m: [cut.cuda() for cut in of] for m, of in cuts.items()}, draws.cuda()
    try:
        torch.cuda.set_sync_debug_mode("error")
        made = views.finish(there, draws_there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for m, of in views.finish(cuts, draws).items():
        for expected, view in zip(of, made[m], strict=True):
            torch.testing.assert_close(view.cpu(), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("ablation", TRAINED)
def test_recorded_steps_give_the_losses_of_others(ablation, precision):
    """As CUDA graphs, from the fourth step on; the last layer is held for four of twelve steps."""
    recipes = [
        recipe_of(SETTINGS, ablation, precision=precision, cuda_graphs=on, epochs=3, freeze_last_layer_epochs=1)
        for on in (True, False)
    ]
    recorded, others = (curves(steps(recipe, 12)) for recipe in recipes)
    tolerance = 1e-3 if precision == "float32" else 3e-2
    pd.testing.assert_frame_equal(recorded, others, rtol=tolerance, atol=tolerance, check_exact=False)


def test_compiled_networks_give_the_losses_of_others():
    chosen = settings(epochs=2)
    eager, compiled = (curves(train(trainer(settings(epochs=2, compile=on)))) for on in (False, True))
    pd.testing.assert_frame_equal(eager, compiled, rtol=1e-3, atol=1e-5, check_exact=False)
    assert len(compiled) == 2 * len(StubLoader(chosen))
