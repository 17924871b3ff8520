"""Parameters of a run, and an estimate of the memory of one training process."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch import nn

from xkd.models.networks import Networks
from xkd.plan.shapes import kept_count, patch_counts, view_shapes
from xkd.recipe import Recipe
from xkd.training.build import build_networks, modality_shapes, trainable_parameters

FULL = 4  # bytes of a float32
# Values of width D that one block keeps per token for its backward pass: input, both norms, q, k, v, attention's output,
# the middle of the block, and 4 D twice in the MLP. Under autocast the residual stream stays in float32 (2 D).
BLOCK_WIDTHS, BLOCK_FULL_WIDTHS = 16, 2
# The same of a block that keeps nothing, while it is computed: input, norm, MLP twice, and a sum.
WORKING_WIDTHS = 11
HEAD_COPIES = 6  # of hidden values and of logits per row: layers, norms, activations, softmaxes of the losses
RECONSTRUCTION_COPIES = 2  # of hidden patches: predicted and target, selected


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


@lru_cache(maxsize=32)
def networks_without_memory(recipe: Recipe) -> Networks:
    """The run's networks on the meta device: shapes only."""
    with torch.device("meta"):
        return build_networks(recipe, seed=0)


def parameters(recipe: Recipe) -> dict[str, int]:
    """Values per network, shared blocks once where they stand first; then `trainable` and `teachers` in all.

    The classifier of a supervised run is left out.
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
    """Clips that one process runs through the networks together."""
    return -(-recipe.training.batch_size // (processes * recipe.training.accumulate))


def memory(recipe: Recipe, processes: int = 1) -> Memory:
    """Estimate for one of `processes` that share a batch; weights and optimiser are not split."""
    counts = parameters(recipe)
    trained, low = counts["trainable"], recipe.training.precision != "float32"
    clips = clips_at_once(recipe, processes)
    kept = clips * sum(_kept_bytes(recipe, modality) for modality in view_shapes(recipe)) if trained else 0
    return Memory(
        weights=FULL * (trained + counts["teachers"]),
        gradients=FULL * trained,
        optimiser=2 * FULL * trained,
        # Under autocast the backward pass also holds a half-precision copy of the weights.
        activations=kept + (trained * FULL / 2 if low else 0),
        working=clips * _working_bytes(recipe),
    )


def _new(module: nn.Module, seen: set[int]) -> int:
    fresh = {id(p): p.numel() for p in module.parameters() if id(p) not in seen}
    seen |= set(fresh)
    return sum(fresh.values())


def _kept_bytes(recipe: Recipe, modality: str) -> float:
    """What one clip's forward pass keeps for the backward pass, and its views."""
    model, shape, counts = recipe.model, modality_shapes(recipe)[modality], patch_counts(recipe, modality)
    tokens = [kept_count(recipe, modality) + 1] + [patches + 1 for patches in counts[1:]]
    values = 2 * sum(counts) * shape.patch_values  # views, and the same cut into patches
    total = FULL * values + _blocks_bytes(recipe, sum(tokens), model.width, model.depth)
    if modality in recipe.reconstructed:
        decoder, hidden = model.decoder, shape.tokens + 1 - tokens[0]
        total += _blocks_bytes(recipe, shape.tokens + 1, decoder.width, decoder.depth)
        total += FULL * shape.patch_values * (shape.tokens + RECONSTRUCTION_COPIES * (hidden + 1))
    if recipe.has_teachers:
        total += FULL * len(counts) * HEAD_COPIES * (model.head.hidden + model.head.out)
    return total


def _blocks_bytes(recipe: Recipe, tokens: int, width: int, depth: int) -> float:
    low = recipe.training.precision != "float32"
    block = FULL * BLOCK_FULL_WIDTHS + (BLOCK_WIDTHS - BLOCK_FULL_WIDTHS) * (FULL / 2 if low else FULL)
    if recipe.training.checkpoint_activations:
        return tokens * width * (depth * FULL + block)  # each block's input, and all of the one at work
    return tokens * width * depth * block


def _working_bytes(recipe: Recipe) -> float:
    """What one clip needs for a moment: in a teacher's block, or where the backward pass begins."""
    return max(_teacher_bytes(recipe), *(_decoder_backward_bytes(recipe, m) for m in view_shapes(recipe)))


def _teacher_bytes(recipe: Recipe) -> float:
    """Its widest block, which keeps nothing, and the tokens of all teachers; without teachers a student's block."""
    teachers = recipe.has_teachers
    tokens = [max(patch_counts(recipe, m)) if teachers else kept_count(recipe, m) for m in view_shapes(recipe)]
    return FULL * recipe.model.width * (WORKING_WIDTHS * max(tokens) + (sum(tokens) if teachers else 0))


def _decoder_backward_bytes(recipe: Recipe, modality: str) -> float:
    """Gradients of the selected and of all predicted patches, and a block of the decoder."""
    if modality not in recipe.reconstructed:
        return 0.0
    shape = modality_shapes(recipe)[modality]
    return FULL * shape.tokens * (2 * shape.patch_values + WORKING_WIDTHS * recipe.model.decoder.width)
