"""Counts the parameters of a run, and estimates the memory of one training process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache

import torch
from torch import nn

from xkd.models.encoder import ModalityShape
from xkd.models.networks import Networks
from xkd.plan.counting import NetworkRun, block_bytes, kept_bytes
from xkd.plan.shapes import decoder_run, encoder_run, head_run, kept_count, teacher_run, view_shapes
from xkd.recipe import Recipe
from xkd.settings import Finetune, Model
from xkd.training.build import build_networks, modalities, modality_shapes, trainable_parameters
from xkd.training.step import AUTOCAST

FLOAT = 4  # bytes of a float32
LOGIT_COPIES = 4  # of the logits of a row in the losses: softmaxes and their products
RECONSTRUCTION_COPIES = 2  # of the hidden patches: predicted and true ones


@dataclass(frozen=True)
class Memory:
    """Bytes of one training process at their highest, beyond what Python, libraries and the CUDA context take."""

    weights: float
    gradients: float
    optimiser: float
    activations: float
    working: float

    @property
    def total(self) -> float:
        total: float = sum(asdict(self).values())
        return total


@dataclass(frozen=True)
class _NetworkSizes:
    """What decides the networks of a run: recipes that agree on it share them."""

    modalities: tuple[str, ...]
    shapes: tuple[ModalityShape, ...]
    model: Model
    reconstructed: tuple[str, ...]
    has_teachers: bool
    recipe: Recipe = field(compare=False)


def networks_without_memory(recipe: Recipe) -> Networks:
    """Returns the run's networks on the meta device: shapes only."""
    shapes = tuple(modality_shapes(recipe).values())
    return _built(
        _NetworkSizes(modalities(recipe), shapes, recipe.model, recipe.reconstructed, recipe.has_teachers, recipe)
    )


@lru_cache(maxsize=32)
def _built(sizes: _NetworkSizes) -> Networks:
    with torch.device("meta"):
        return build_networks(sizes.recipe, seed=0)


def parameters(recipe: Recipe) -> dict[str, int]:
    """Counts values per network, shared blocks once in the first network that has them.

    `trainable` and `teachers` in all follow. The classifier of a supervised run is left out.
    """
    networks, counts = networks_without_memory(recipe), {}
    seen: set[int] = set()
    for group in ("students", "decoders", "student_heads", "teachers", "teacher_heads"):
        for modality, module in getattr(networks, group).items():
            counts[f"{group.replace('_', ' ').removesuffix('s')} {modality}"] = _new(module, seen)
    trained = recipe.training.mode != "none"
    counts["trainable"] = trainable_parameters(networks) if trained else 0
    counts["teachers"] = sum(p.numel() for p in networks.parameters()) - trainable_parameters(networks)
    return counts


def clips_at_once(recipe: Recipe, processes: int) -> int:
    """Counts the clips that one process runs through the networks together."""
    return -(-recipe.training.batch_size // (processes * recipe.training.accumulate))


def memory(recipe: Recipe, processes: int = 1) -> Memory:
    """Estimates the memory of one of `processes` that share a batch; weights and optimiser are not split."""
    counts = parameters(recipe)
    trained, low = counts["trainable"], recipe.training.precision != "float32"
    clips = clips_at_once(recipe, processes)
    kept = clips * sum(_activations(recipe, modality) for modality in view_shapes(recipe)) if trained else 0
    return Memory(
        weights=FLOAT * (trained + counts["teachers"]),
        gradients=FLOAT * trained,
        optimiser=2 * FLOAT * trained,
        # Under autocast the backward pass also holds a half-precision copy of the weights.
        activations=kept + (trained * FLOAT / 2 if low else 0),
        working=clips * max(_working(recipe, modality) for modality in view_shapes(recipe)),
    )


def finetuning_memory(recipe: Recipe, seen: Sequence[str], settings: Finetune, processes: int) -> Memory:
    """Estimates the memory of one of `processes` that finetune the encoders of some modalities together."""
    runs = [encoder_run(recipe, m, 0, masked=False) for m in seen]
    trained = sum(p.numel() for run in runs for p in run.build().parameters())
    precision, share = AUTOCAST.get(settings.precision), settings.batch_size // processes
    clips = -(-share // settings.accumulate)
    kept = sum(_kept(run, precision, settings.checkpoint_activations) for run in runs)
    views = sum(math.prod(run.shape) for run in runs)
    return Memory(
        weights=FLOAT * trained,
        gradients=FLOAT * trained,
        optimiser=2 * FLOAT * trained,
        activations=clips * kept + (trained * FLOAT / 2 if precision else 0),
        # The views of the whole batch stay, as they came and augmented.
        working=share * 2 * FLOAT * views + clips * max((block_bytes(run, precision) for run in runs), default=0),
    )


def extraction_memory(recipe: Recipe, seen: Sequence[str], owners: int, batch: int, precision: str) -> Memory:
    """Estimates the memory of a process that runs frozen encoders, view by view."""
    runs, low = [encoder_run(recipe, m, 0, masked=False) for m in seen], AUTOCAST.get(precision)
    weights = owners * sum(p.numel() for run in runs for p in run.build().parameters())
    one_clip = max((FLOAT * math.prod(run.shape) + block_bytes(run, low) for run in runs), default=0)
    return Memory(FLOAT * weights, 0, 0, 0, batch * one_clip + (weights * FLOAT / 2 if low else 0))


def _kept(run: NetworkRun, precision: torch.dtype | None, recompute: bool) -> float:
    """Counts the bytes of one clip that a network keeps, and of the block that is being recomputed."""
    return kept_bytes(run, precision, recompute) + (block_bytes(run, precision) if recompute else 0)


def _new(module: nn.Module, seen: set[int]) -> int:
    fresh = {id(p): p.numel() for p in module.parameters() if id(p) not in seen}
    seen |= set(fresh)
    return sum(fresh.values())


def _activations(recipe: Recipe, modality: str) -> float:
    """Counts the bytes that one clip's forward pass keeps for the backward pass, and its views."""
    views, precision = view_shapes(recipe)[modality], AUTOCAST.get(recipe.training.precision)
    runs = [encoder_run(recipe, modality, n) for n in range(len(views))]
    total = FLOAT * sum(map(math.prod, views))
    if modality in recipe.reconstructed:
        shape, kept = modality_shapes(recipe)[modality], kept_count(recipe, modality)
        runs.append(decoder_run(recipe, modality))
        total += FLOAT * shape.patch_values * RECONSTRUCTION_COPIES * (shape.tokens - kept)
    if recipe.has_teachers:
        total += len(views) * (kept_bytes(head_run(recipe), precision) + FLOAT * LOGIT_COPIES * recipe.model.head.out)
    recompute = recipe.training.checkpoint_activations
    total += sum(kept_bytes(run, precision, recompute) for run in runs)
    return total + (max(block_bytes(run, precision) for run in runs) if recompute else 0)


def _working(recipe: Recipe, modality: str) -> float:
    """Estimates what one clip needs for a moment: in an encoder's block, or where the backward pass begins.

    There the gradients of the predicted patches are held beside a block of the decoder.
    """
    precision, shape = AUTOCAST.get(recipe.training.precision), modality_shapes(recipe)[modality]
    run = teacher_run(recipe, modality) if recipe.has_teachers else encoder_run(recipe, modality, 0)
    working = [block_bytes(run, precision)]
    if modality in recipe.reconstructed:
        gradients = FLOAT * (shape.tokens - kept_count(recipe, modality)) * shape.patch_values
        working.append(gradients + block_bytes(decoder_run(recipe, modality), precision))
    return max(working)
