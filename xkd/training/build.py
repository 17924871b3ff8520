"""From settings to networks."""

from __future__ import annotations

import torch
from torch import nn

from xkd import registry
from xkd.encoders.folder import plugin_settings
from xkd.errors import UserError
from xkd.modalities import MODALITIES
from xkd.models.encoder import Backbone, ModalityShape
from xkd.models.networks import Networks, NetworkSizes
from xkd.recipe import Recipe
from xkd.settings import Model
from xkd.training.start import given_encoders


def modality_shapes(recipe: Recipe) -> dict[str, ModalityShape]:
    """Returns patch, grid and channels of each modality's global view."""
    return {m: ModalityShape(recipe.model.patch(m), grid, MODALITIES[m].channels) for m, grid in recipe.grids.items()}


def backbone(model: Model) -> Backbone:
    """Returns the name and sizes of the encoders of group `model` of the settings."""
    given = model.plugged.get(model.arch)
    own = plugin_settings(model.arch, given.model_dump() if given else {})
    return Backbone(model.arch, model.width, model.depth, model.heads, model.positions, own)


def network_sizes(model: Model) -> NetworkSizes:
    """Returns the sizes of all networks of group `model` of the settings."""
    decoder, head = model.decoder, model.head
    return NetworkSizes(
        backbone(model),
        (decoder.width, decoder.depth, decoder.heads),
        (head.hidden, head.bottleneck, head.out),
        model.share,
        head.input,
    )


def modalities(recipe: Recipe) -> tuple[str, ...]:
    """Returns the modalities of a run, video first: those it trains, or those of the encoders that it was given."""
    return recipe.modalities or tuple(given_encoders(recipe.training.weights))


def build_networks(recipe: Recipe, seed: int) -> Networks:
    """Draws networks from `seed`; the global random state is left alone.

    Encoders are drawn first, video before audio, whatever else a run needs: ablations of a seed that
    have both modalities and the same sharing start from the same encoders.

    Raises:
        UserError: sizes that the backbone cannot have, or refinement by attention that it does not compute.
    """
    chosen, arch = modalities(recipe), recipe.model.arch
    if recipe.has_teachers and recipe.objective.refinement != "none" and not registry.backbones[arch].HAS_CLS_ATTENTION:
        raise UserError(f"objective.refinement: {arch} has no CLS attention to refine with; set refinement to none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Networks(
            {m: shape for m, shape in modality_shapes(recipe).items() if m in chosen},
            network_sizes(recipe.model),
            recipe.reconstructed,
            recipe.has_teachers,
        )


def trainable_parameters(module: nn.Module) -> int:
    """Counts the values that receive gradients, shared tensors once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
