"""Counts the floating-point operations of a run, part by part.

Convention: a multiply-add is 2 operations, and only matrix products count (linear layers, attention, the heads, the pairs
of rows in domain alignment). Norms, activations, softmax, the optimiser and the teachers' moving average are left out:
they move memory, and cost few operations. Products that attention kernels compute again in their backward pass are no
part of the model's arithmetic, as usual for model FLOP utilisation.
"""

from __future__ import annotations

from dataclasses import dataclass

from xkd.plan.counting import NetworkRun, operations
from xkd.plan.shapes import decoder_run, encoder_run, head_run, teacher_run, view_shapes
from xkd.recipe import Recipe
from xkd.training.build import modalities


@dataclass(frozen=True)
class NetworkOperations:
    """Operations of a network on a view, in its forward and backward pass."""

    name: str
    forward: float
    backward: float = 0.0

    def times(self, count: int) -> NetworkOperations:
        return NetworkOperations(self.name, self.forward * count, self.backward * count)


@dataclass(frozen=True)
class StepFlops:
    """Operations of one training step of the whole batch; `recomputed` come on top of `total` (see `step_flops`)."""

    parts: tuple[NetworkOperations, ...]
    recomputed: float = 0.0

    @property
    def forward(self) -> float:
        return sum(part.forward for part in self.parts if not part.name.startswith("teacher"))

    @property
    def backward(self) -> float:
        return sum(part.backward for part in self.parts)

    @property
    def teachers(self) -> float:
        return sum(part.forward for part in self.parts if part.name.startswith("teacher"))

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.teachers


def step_flops(recipe: Recipe) -> StepFlops:
    """Counts the operations of a step of `training.batch_size` clips, on however many processes.

    The classifier of a supervised run is left out: its number of labels is unknown here, and its cost small.
    """
    if recipe.training.mode == "none":
        return StepFlops(())
    batch, parts = recipe.training.batch_size, []
    for modality in modalities(recipe):
        parts += [part.times(batch) for part in _student(recipe, modality)]
    if recipe.has_teachers:
        parts += [_teacher(recipe, modality).times(batch) for modality in modalities(recipe)]
        parts += _alignment(recipe)
    return StepFlops(tuple(parts), _recomputed(recipe, parts))


def encoder_forward(recipe: Recipe, modality: str) -> float:
    """Counts the operations of one clip's whole global view, as evaluations encode it."""
    return operations(encoder_run(recipe, modality, 0, masked=False), trained=False)[0]


def _student(recipe: Recipe, modality: str) -> list[NetworkOperations]:
    views = view_shapes(recipe)[modality]
    parts = [_counted(f"student {modality}, global view", encoder_run(recipe, modality, 0))]
    parts += [
        _counted(f"student {modality}, local views", encoder_run(recipe, modality, n)) for n in range(1, len(views))
    ]
    if modality in recipe.reconstructed:
        parts.append(_counted(f"decoder {modality}", decoder_run(recipe, modality)))
    if recipe.has_teachers:
        parts.append(_counted(f"student {modality}, head", head_run(recipe)).times(len(views)))
    return parts


def _teacher(recipe: Recipe, modality: str) -> NetworkOperations:
    forward = operations(teacher_run(recipe, modality), trained=False)[0]
    return NetworkOperations(f"teacher {modality}", forward + operations(head_run(recipe), trained=False)[0])


def _counted(name: str, run: NetworkRun) -> NetworkOperations:
    return NetworkOperations(name, *operations(run, trained=True))


def _alignment(recipe: Recipe) -> list[NetworkOperations]:
    """Products of all pairs of rows (MMD), or of all pairs of columns (CORAL)."""
    if not recipe.objective.alignment:
        return []
    batch, logits = recipe.training.batch_size, recipe.model.head.out
    students, teachers = (1 + recipe.views.local_views) * batch, batch
    if recipe.objective.discrepancy == "mmd":
        cost = {rows: 2 * (2 * rows) ** 2 * logits for rows in (students, teachers)}
    else:
        cost = {rows: 2 * 2 * rows * logits**2 for rows in (students, teachers)}
    return [_trained("alignment", cost[students]), NetworkOperations("alignment", cost[teachers])]


def _recomputed(recipe: Recipe, parts: list[NetworkOperations]) -> float:
    """Counts forward passes that save memory: of checkpointed networks, and of a batch in parts that alignment compares."""
    training, extra = recipe.training, 0.0
    students = [part for part in parts if part.name.startswith("student")]
    if training.checkpoint_activations:
        extra += sum(part.forward for part in parts if part.backward and part.name.startswith(("student", "decoder")))
    if training.accumulate > 1 and recipe.has_teachers and recipe.objective.alignment:
        extra += sum(part.forward for part in students)
    return extra


def _trained(name: str, forward: float) -> NetworkOperations:
    return NetworkOperations(name, forward, 2 * forward)
