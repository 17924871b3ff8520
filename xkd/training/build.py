"""From settings to networks."""

from __future__ import annotations

import torch
from torch import nn

from xkd.modalities import MODALITIES
from xkd.models.networks import ModalityShape, Networks, Sizes
from xkd.recipe import Recipe
from xkd.settings import Model
from xkd.training.start import given_encoders


def modality_shapes(recipe: Recipe) -> dict[str, ModalityShape]:
    """Patch, grid and channels of each modality's global view."""
    return {m: ModalityShape(recipe.model.patch(m), grid, MODALITIES[m].channels) for m, grid in recipe.grids.items()}


def sizes(model: Model) -> Sizes:
    """Group `model` of the settings as network sizes."""
    decoder, head = model.decoder, model.head
    return Sizes(
        model.width,
        model.depth,
        model.heads,
        (decoder.width, decoder.depth, decoder.heads),
        (head.hidden, head.bottleneck, head.out),
        model.share,
        model.positions,
    )


def modalities(recipe: Recipe) -> tuple[str, ...]:
    """The modalities of a run, video first: those it trains, or those of the encoders that it was given."""
    return recipe.modalities or tuple(given_encoders(recipe.training.weights))


def build_networks(recipe: Recipe, seed: int) -> Networks:
    """Networks with starting weights drawn from `seed`; the global random state is left alone.

    Encoders are drawn first, video before audio, whatever else a run needs: ablations of a seed that
    have both modalities and the same sharing start from the same encoders.
    """
    chosen = modalities(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Networks(
            {m: shape for m, shape in modality_shapes(recipe).items() if m in chosen},
            sizes(recipe.model),
            recipe.reconstructed,
            recipe.has_teachers,
        )


def trainable_parameters(module: nn.Module) -> int:
    """Number of values that receive gradients, shared tensors once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
