"""A plugin's backbone: patches are embedded, mixed by gated averages, and know nothing of positions or attention."""

import torch
from torch import nn

from xkd import registry
from xkd.models.encoder import Encoded, Encoder, take
from xkd.settings import Positive, Settings


class Gate(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.norm, self.gate, self.value = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return x + self.value(self.gate(self.norm(x)).sigmoid() * x.mean(1, keepdim=True)[..., :1])


@registry.backbones.register("averages")
class Averages(Encoder):
    HAS_CLS_ATTENTION = False

    class Settings(Settings):
        hidden: Positive = 8

    def __init__(self, shape, backbone, blocks):
        super().__init__(shape, backbone, blocks)
        self.embed, self.cls_token = nn.Linear(shape.patch_values, self.width), nn.Parameter(torch.zeros(self.width))
        self.blocks, self.norm = blocks, nn.LayerNorm(self.width)

    @classmethod
    def make_blocks(cls, backbone):
        return nn.ModuleList(Gate(backbone.width, backbone.settings.hidden) for _ in range(backbone.depth))

    def encode_patches(self, patches, keep_BK=None, with_cls_attention=False):
        values = patches.values if keep_BK is None else take(patches.values, keep_BK)
        x = torch.cat((self.cls_token.expand(len(values), 1, -1), self.embed(values)), 1)
        for block in self.blocks:
            x = self.run(block, x)
        return Encoded(self.norm(x), None)
