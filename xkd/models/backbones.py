"""Builds encoders by the name of their backbone, ours or a plugin's."""

from __future__ import annotations

from torch import nn

from xkd import registry
from xkd.models import rope, vit  # noqa: F401 (they register backbones)
from xkd.models.encoder import Backbone, Encoder, ModalityShape


def make_blocks(backbone: Backbone) -> nn.ModuleList:
    """Draws the blocks of an encoder.

    Raises:
        UserError: no such backbone.
    """
    blocks: nn.ModuleList = registry.backbones[backbone.arch].make_blocks(backbone)
    return blocks


def build_encoder(shape: ModalityShape, backbone: Backbone, blocks: nn.ModuleList | None = None) -> Encoder:
    """Draws an encoder: its blocks, unless given, then the rest.

    Raises:
        UserError: no such backbone, or sizes that it cannot have.
    """
    blocks = make_blocks(backbone) if blocks is None else blocks
    encoder: Encoder = registry.backbones[backbone.arch](shape, backbone, blocks)
    return encoder
