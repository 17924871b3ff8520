"""A plugin that registers an augmentation of audio views."""

import torch
from torch import Tensor

from xkd import registry
from xkd.modalities.base import Augmentation
from xkd.settings.base import Fraction
from xkd.settings.base import Settings as Group


@registry.augmentations.register("noise")
class Noise(Augmentation):
    """Adds Gaussian noise of a random strength."""

    modalities = ("audio",)
    draws = 2

    class Settings(Group):
        strength: Fraction = 0.1

    @staticmethod
    def apply(view: Tensor, draws: Tensor, settings: Settings) -> Tensor:
        noisy = []
        for clip, (seed, strength) in zip(view, draws.tolist(), strict=True):
            generator = torch.Generator().manual_seed(int(seed * 2**24))
            noise = torch.randn(clip.shape, generator=generator).to(clip.device)
            noisy.append(clip + settings.strength * strength * noise)
        return torch.stack(noisy)
