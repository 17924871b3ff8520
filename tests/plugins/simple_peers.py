"""Encoders of a plugin that are not ours: the mean colour of each quarter of the frames, and the loudness over time."""

import torch

from xkd import registry
from xkd.encoders.peer import Peer


@registry.peers.register("mean_colour")
class MeanColour(Peer):
    modalities = ("video",)
    licence = "MIT"

    def forward(self, clips, rate):
        quarters = [half for rows in clips.chunk(2, 2) for half in rows.chunk(2, 3)]
        return torch.cat([quarter.float().mean((1, 2, 3)) for quarter in quarters], 1)


@registry.peers.register("loudness")
class Loudness(Peer):
    modalities = ("audio",)
    PARTS = 8

    def forward(self, clips, rate):
        parts = clips[:, : clips.shape[1] // self.PARTS * self.PARTS].unflatten(1, (self.PARTS, -1))
        return parts.square().mean(2).clamp_min(1e-8).log()
