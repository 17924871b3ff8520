"""Counts the floating-point operations of a run, part by part.

Convention: a multiply-add is 2 operations, and only matrix products count (linear layers, attention, the heads, the
pairs of rows in domain alignment). Norms, activations, softmax, the optimiser and the teachers' moving average are left
out: they move memory, and cost few operations. Products that attention kernels compute again in their backward pass are
no part of the model's arithmetic, as usual for model FLOP utilisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from xkd import registry
from xkd.objectives.term import Outputs, Term
from xkd.plan.counting import NetworkRun, operations
from xkd.plan.footprint import networks_without_memory
from xkd.plan.shapes import decoder_run, encoder_run, head_run, kept_count, patch_counts, teacher_run, view_shapes
from xkd.recipe import Recipe
from xkd.training.build import modalities, modality_shapes
from xkd.training.objective import run_objective


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
    parts += _terms(recipe)
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


def _terms(recipe: Recipe) -> list[NetworkOperations]:
    """Counts the products in the objective's terms themselves, such as those of all pairs of rows in domain alignment.

    PyTorch counts them on tensors without memory. A plugin's term that looks at values cannot be counted; it is left
    out.
    """
    if recipe.training.mode != "pretrain":
        return []
    with torch.device("meta"):
        outputs = _outputs_without_memory(recipe)
        terms = run_objective(recipe, networks_without_memory(recipe), classes=1).terms
    return [part for name, term in terms.items() if (part := _counted_term(name, term, outputs)).forward]


def _outputs_without_memory(recipe: Recipe) -> Outputs:
    """Returns what terms get of a whole batch; to be called on the meta device."""
    clips, labels_B = recipe.training.batch_size, torch.zeros(recipe.training.batch_size, dtype=torch.long)
    outputs = Outputs(temperatures=dict.fromkeys(modalities(recipe), 1.0), labels_B=labels_B)
    for modality in modalities(recipe):
        counts, kept = patch_counts(recipe, modality), kept_count(recipe, modality)
        patches_BNP = torch.zeros(clips, counts[0], modality_shapes(recipe)[modality].patch_values)
        outputs.features_BD[modality] = torch.zeros(clips, recipe.model.width, requires_grad=True)
        if modality in recipe.reconstructed:
            outputs.patches_BNP[modality] = patches_BNP
            outputs.hidden_BM[modality] = torch.zeros(clips, counts[0] - kept, dtype=torch.long)
            outputs.predicted_BMP[modality] = torch.zeros_like(patches_BNP[:, kept:], requires_grad=True)
        if recipe.has_teachers:
            logits = recipe.model.head.out
            outputs.student_RK[modality] = torch.zeros(len(counts) * clips, logits, requires_grad=True)
            outputs.teacher_BK[modality] = torch.zeros(clips, logits)
    return outputs


def _counted_term(name: str, term: Term, outputs: Outputs) -> NetworkOperations:
    try:
        with FlopCounterMode(display=False) as forward:
            loss = term(outputs).loss
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    except (RuntimeError, NotImplementedError):
        return NetworkOperations(name, 0)
    return NetworkOperations(name, forward.get_total_flops(), backward.get_total_flops())


def _recomputed(recipe: Recipe, parts: list[NetworkOperations]) -> float:
    """Forward passes that save memory: of checkpointed networks, and of a batch in parts that a term compares."""
    training, extra = recipe.training, 0.0
    students = [part for part in parts if part.name.startswith("student")]
    if training.checkpoint_activations:
        extra += sum(part.forward for part in parts if part.backward and part.name.startswith(("student", "decoder")))
    if training.accumulate > 1 and any(registry.terms[name].compares_clips for name in recipe.weights):
        extra += sum(part.forward for part in students)
    return extra


def _trained(name: str, forward: float) -> NetworkOperations:
    return NetworkOperations(name, forward, 2 * forward)
