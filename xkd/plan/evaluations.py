"""Counts the floating-point operations of the evaluations of a run."""

from __future__ import annotations

from xkd import registry
from xkd.modalities import MODALITIES
from xkd.params import protocol, tasks_of, with_views
from xkd.plan.arithmetic import encoder_forward
from xkd.plan.storage import ClipInventory
from xkd.recipe import Recipe
from xkd.settings import FrozenSettings, Params, Task
from xkd.training.build import modalities


def evaluation_flops(params: Params, recipe: Recipe, counts: dict[str, ClipInventory]) -> dict[str, float]:
    """Counts the operations of the encoders per task, for one seed of an ablation. Solvers of probes are left out.

    Features that several tasks share are extracted once, but counted for each.

    Args:
        counts: clips of each data set that a task names.
    """
    return {name: _task(params, name, recipe, counts) for name in tasks_of(params, recipe.ablation)}


def _task(params: Params, name: str, recipe: Recipe, counts: dict[str, ClipInventory]) -> float:
    task, settings, recipe = params.tasks[name], protocol(params, name), with_views(recipe, params, name)
    clips = counts[task.dataset or params.dataset]
    seen = [m for m in task.modalities if m in clips.streams and m in modalities(recipe)]
    cost = {modality: encoder_forward(recipe, modality) for modality in seen}
    views = {modality: task.clips * (task.crops if MODALITIES[modality].cropped else 1) for modality in seen}
    if not isinstance(settings, FrozenSettings):
        epochs = registry.protocols[task.protocol].epochs(settings)
        trained = 3 * epochs * clips.train * max(1, len(task.folds))
        return sum(cost[m] * (trained + views[m] * _tested(task, clips)) for m in seen)
    encoders = len([owner for owner in settings.encoders if owner == "student" or recipe.has_teachers])
    whole, augmented = _extracted(task, clips)
    return encoders * sum(cost[m] * (views[m] * whole + augmented) for m in seen)


def _tested(task: Task, clips: ClipInventory) -> int:
    """Counts the clips that finetuned classifiers run on: all clips for every fold, of which the fold's are taken."""
    return clips.all * len(task.folds) if task.folds else clips.splits.get("test", 0)


def _extracted(task: Task, clips: ClipInventory) -> tuple[int, int]:
    """Counts clips that give test views, and single views augmented as in training; folds share those of all clips."""
    train, test = (clips.all, clips.all) if task.folds else (clips.train, clips.splits.get("test", 0))
    if task.train_clips > 1:
        return test, task.train_clips * train
    return (clips.all if task.folds else train + test), 0
