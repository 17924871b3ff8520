"""The views of a run: their sizes, how many tokens they make, and the networks that run on them."""

from __future__ import annotations

import math
from dataclasses import replace

from xkd import registry
from xkd.modalities import MODALITIES
from xkd.models.backbones import build_encoder
from xkd.models.decoder import PatchDecoder
from xkd.models.encoder import Backbone, Encoder, ModalityShape
from xkd.models.head import ProjectionHead
from xkd.models.patches import grid_of
from xkd.plan.counting import NetworkRun
from xkd.recipe import Recipe
from xkd.training.build import backbone, modalities, modality_shapes, network_sizes


def view_shapes(recipe: Recipe) -> dict[str, list[tuple[int, ...]]]:
    """Lists the shapes of a clip's views per modality, global first: (3, T, H, W) or (1, mel bands, frames)."""
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


def encoder_run(
    recipe: Recipe, modality: str, view: int, masked: bool = True, cls_attention: bool = False
) -> NetworkRun:
    """Returns a modality's encoder on one of its views, 0 the global one, which students see `masked`."""
    kept = kept_count(recipe, modality) if masked and view == 0 and recipe.training.mode == "pretrain" else None
    model = backbone(recipe.model)
    blueprint = (_encoder, modality_shapes(recipe)[modality], replace(model, depth=0))
    ours = model.arch in registry.backbones.own  # the blocks of a plugin may differ from each other
    return NetworkRun(blueprint, model.depth, view_shapes(recipe)[modality][view], kept, cls_attention=cls_attention, alike=ours)


def teacher_run(recipe: Recipe, modality: str) -> NetworkRun:
    """Returns a modality's teacher on the view that it sees."""
    view, refines = int(recipe.objective.teacher_view == "local"), recipe.objective.refinement != "none"
    return encoder_run(recipe, modality, view, masked=False, cls_attention=refines)


def decoder_run(recipe: Recipe, modality: str) -> NetworkRun:
    """Returns a modality's decoder on the visible patches of the global view."""
    shape, width, kept = modality_shapes(recipe)[modality], recipe.model.width, kept_count(recipe, modality)
    own_width, depth, heads = network_sizes(recipe.model).decoder
    blueprint = (_decoder, shape.grid, shape.patch_values, width, own_width, heads)
    return NetworkRun(blueprint, depth, (1 + kept, width), kept, shape.tokens - kept)


def head_run(recipe: Recipe) -> NetworkRun:
    """Returns a projection head on the mean token of one view."""
    blueprint = (_head, recipe.model.width, *network_sizes(recipe.model).head)
    return NetworkRun(blueprint, 0, (recipe.model.width,))


def _encoder(shape: ModalityShape, model: Backbone, depth: int) -> Encoder:
    return build_encoder(shape, replace(model, depth=depth))


def _decoder(
    grid: tuple[int, ...], patch_values: int, encoder_width: int, width: int, heads: int, depth: int
) -> PatchDecoder:
    return PatchDecoder(grid, patch_values, encoder_width, width, depth, heads)


def _head(width: int, hidden: int, bottleneck: int, out: int, _depth: int) -> ProjectionHead:
    return ProjectionHead(width, hidden, bottleneck, out)
