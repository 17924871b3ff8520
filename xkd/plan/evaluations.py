"""The evaluations of a run: the arithmetic and the clips of each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xkd import registry
from xkd.modalities import MODALITIES
from xkd.params import protocol, task_dataset, tasks_of, with_views
from xkd.plan.arithmetic import encoder_forward
from xkd.plan.footprint import extraction_memory, finetuning_memory
from xkd.plan.jobs import Job, Phase
from xkd.plan.loading import stored, test_load, training_load
from xkd.plan.storage import ClipInventory
from xkd.recipe import Recipe
from xkd.settings import Execution, Params, Task, TrainingRequest
from xkd.training.build import modalities


def evaluation_jobs(params: Params, recipe: Recipe, counts: dict[str, ClipInventory]) -> list[Job]:
    """Returns the job of each task for one seed of an ablation. Solvers of probes are left out.

    Features that several tasks share are extracted once, but counted for each.

    Args:
        counts: clips of each data set that a task names.
    """
    return [_job(params, name, recipe, counts) for name in tasks_of(params, recipe.ablation)]


def _job(params: Params, name: str, recipe: Recipe, counts: dict[str, ClipInventory]) -> Job:
    task, settings, recipe = params.tasks[name], protocol(params, name), with_views(recipe, params, name)
    clips = counts[task_dataset(params, name)]
    seen = [m for m in task.modalities if m in clips.streams and m in modalities(recipe)]
    job_of = _finetuned if isinstance(settings, Execution) else _frozen
    return job_of(params, name, recipe, clips, seen)


def _finetuned(params: Params, name: str, recipe: Recipe, clips: ClipInventory, seen: Sequence[str]) -> Job:
    """Returns a job that trains encoders on every training clip, fold by fold, and judges them."""
    task, settings, training = params.tasks[name], _settings(params, name), recipe.training
    asked = params.resources.of_protocol(task.protocol)
    cost, folds = {m: encoder_forward(recipe, m) for m in seen}, max(1, len(task.folds))
    trained = registry.protocols[task.protocol].epochs(settings) * clips.train * folds
    passes = 4 if settings.checkpoint_activations else 3
    share = settings.batch_size // asked.all_processes
    train = Phase(
        passes * sum(cost.values()) * trained, trained, training_load(recipe, stored(params, task.dataset), seen), share
    )
    test = _test_phase(params, task, recipe, cost, clips.splits.get("test", 0) * folds)
    told = finetuning_memory(recipe, seen, settings, asked.all_processes)
    return Job(name, asked, settings.precision, (train, test), told, training.workers, training.queue_gb, resumes=True)


def _frozen(params: Params, name: str, recipe: Recipe, clips: ClipInventory, seen: Sequence[str]) -> Job:
    """Returns a job that extracts features, all encoders in one pass over the clips."""
    task, settings, training = params.tasks[name], _settings(params, name), recipe.training
    asked = params.resources.of_protocol(task.protocol)
    if params.resources.features:
        asked = TrainingRequest(**params.resources.features.model_dump(), processes=1)
    owners = [owner for owner in settings.encoders if owner == "student" or recipe.has_teachers]
    cost, (whole, augmented) = {m: len(owners) * encoder_forward(recipe, m) for m in seen}, _extracted(task, clips)
    phases = [_test_phase(params, task, recipe, cost, whole)]
    if augmented:
        load = training_load(recipe, stored(params, task.dataset), seen)
        phases.append(Phase(sum(cost.values()) * augmented, augmented, load, params.evaluate.batch_size))
    precision, batch = params.evaluate.precision, params.evaluate.batch_size
    told = extraction_memory(recipe, seen, len(owners), batch, precision)
    return Job(name, asked, precision, tuple(phases), told, training.workers, training.queue_gb, resumes=False)


def _settings(params: Params, task: str) -> Any:
    """Returns a task's settings, whose attributes depend on the protocol."""
    return protocol(params, task)


def _test_phase(params: Params, task: Task, recipe: Recipe, cost: dict[str, float], clips: int) -> Phase:
    """Returns the pass over all views of so many clips, each view at the `cost` of its modality."""
    views = {m: task.clips * (task.crops if MODALITIES[m].cropped else 1) for m in cost}
    flops = sum(cost[m] * views[m] for m in cost) * clips
    return Phase(flops, clips, test_load(recipe, stored(params, task.dataset), views), params.evaluate.batch_size)


def _extracted(task: Task, clips: ClipInventory) -> tuple[int, int]:
    """Counts clips that give test views, and single views augmented as in training; folds share those of all clips."""
    train, test = (clips.all, clips.all) if task.folds else (clips.train, clips.splits.get("test", 0))
    if task.train_clips > 1:
        return test, task.train_clips * train
    return (clips.all if task.folds else train + test), 0
