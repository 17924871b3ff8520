"""Computes the sizes of a run's views, and how many tokens they make."""

from __future__ import annotations

import math

from xkd.modalities import MODALITIES
from xkd.models.patches import grid_of
from xkd.recipe import Recipe
from xkd.training.build import modalities


def view_shapes(recipe: Recipe) -> dict[str, list[tuple[int, ...]]]:
    """Lists per modality of the run the shape of one clip's views, global first: (3, T, H, W) or (1, mel bands, frames)."""
    local = recipe.views.local_views if recipe.has_teachers else 0
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for modality in modalities(recipe):
        first, second = (
            (MODALITIES[modality].channels, *view.shape(recipe.logmel)) for view in recipe.views.of(modality).values()
        )
        shapes[modality] = [first, *[second] * local]
    return shapes


def patch_counts(recipe: Recipe, modality: str) -> list[int]:
    """Counts the patches of each view of a modality, global first; without CLS."""
    return [math.prod(grid_of(shape, recipe.model.patch(modality))) for shape in view_shapes(recipe)[modality]]


def kept_count(recipe: Recipe, modality: str) -> int:
    """Counts the patches of the global view that the student sees."""
    patches, masked = patch_counts(recipe, modality)[0], recipe.objective.mask(modality)
    return round(patches * (1 - masked)) if recipe.training.mode == "pretrain" else patches
