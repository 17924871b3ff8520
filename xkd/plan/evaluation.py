"""Floating-point operations of the evaluations: every task that the settings ask of a run."""

from __future__ import annotations

from xkd import registry
from xkd.params import protocol, tasks_of, with_views
from xkd.plan.arithmetic import encoder_forward
from xkd.plan.storage import ClipCounts
from xkd.recipe import Recipe
from xkd.settings import FrozenSettings, Params, Task
from xkd.training.build import modalities


def evaluation_flops(params: Params, recipe: Recipe, counts: dict[str, ClipCounts]) -> dict[str, float]:
    """Returns the cost of each task for one seed of an ablation: passes of the encoders, without the solvers of probes.

    Features that several tasks share are extracted once, but counted for each.

    Args:
        counts: of each data set that a task names.
    """
    return {name: _task(params, name, recipe, counts) for name in tasks_of(params, recipe.ablation)}


def _task(params: Params, name: str, recipe: Recipe, counts: dict[str, ClipCounts]) -> float:
    task, settings, recipe = params.tasks[name], protocol(params, name), with_views(recipe, params, name)
    clips = counts[task.dataset or params.dataset]
    seen = [m for m in task.modalities if m in clips.streams and m in modalities(recipe)]
    cost = {modality: encoder_forward(recipe, modality) for modality in seen}
    views = {modality: task.clips * (task.crops if modality == "video" else 1) for modality in seen}
    if not isinstance(settings, FrozenSettings):
        epochs = registry.protocols[task.protocol].epochs(settings)
        trained = 3 * epochs * clips.train * max(1, len(task.folds))
        return sum(cost[m] * (trained + views[m] * _tested(task, clips)) for m in seen)
    encoders = len([owner for owner in settings.encoders if owner == "student" or recipe.has_teachers])
    whole, augmented = _extracted(task, clips)
    return encoders * sum(cost[m] * (views[m] * whole + augmented) for m in seen)


def _tested(task: Task, clips: ClipCounts) -> int:
    """Clips that finetuned classifiers are run on: of every fold all clips, from which the fold's are taken."""
    return clips.all * len(task.folds) if task.folds else clips.splits.get("test", 0)


def _extracted(task: Task, clips: ClipCounts) -> tuple[int, int]:
    """Clips whose test views are taken, and single views augmented as in training; folds share those of all clips."""
    train, test = (clips.all, clips.all) if task.folds else (clips.train, clips.splits.get("test", 0))
    if task.train_clips > 1:
        return test, task.train_clips * train
    return (clips.all if task.folds else train + test), 0
