"""The views of a run: their sizes, and how many tokens they make."""

from __future__ import annotations

import math

from xkd.models.patches import grid_of
from xkd.recipe import Recipe
from xkd.training.build import modalities


def view_shapes(recipe: Recipe) -> dict[str, list[tuple[int, ...]]]:
    """Per modality of the run the shape of one clip's views, global first: (3, T, H, W) or (1, mel bands, frames)."""
    views, count = recipe.views, recipe.views.local_views if recipe.has_teachers else 0
    video = [views.video_global] + [views.video_local] * count
    audio = [views.audio_global] + [views.audio_local] * count
    shapes: dict[str, list[tuple[int, ...]]] = {
        "video": [(3, view.frames, view.size, view.size) for view in video],
        "audio": [(1, recipe.logmel.n_mels, view.frames) for view in audio],
    }
    return {modality: shapes[modality] for modality in modalities(recipe)}


def patch_counts(recipe: Recipe, modality: str) -> list[int]:
    """Patches of each view of a modality, global first; without CLS."""
    patch = getattr(recipe.model, f"{modality}_patch")
    return [math.prod(grid_of(shape, patch)) for shape in view_shapes(recipe)[modality]]


def kept_count(recipe: Recipe, modality: str) -> int:
    """Patches of the global view that the student sees."""
    patches, masked = patch_counts(recipe, modality)[0], getattr(recipe.objective, f"mask_{modality}")
    return round(patches * (1 - masked)) if recipe.training.mode == "pretrain" else patches
