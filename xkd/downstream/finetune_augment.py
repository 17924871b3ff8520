"""Augments batches of finetuning (paper section 4): RandAugment, erasing, time warp, masks, mixup and cutmix.

All are off by default. Draws come from torch's global generator; the caller seeds it. Mixup and cutmix are our own,
since torchvision's draw other boxes and in another order, and results would change.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from xkd.modalities import MODALITIES
from xkd.modalities.video import IMAGENET_MEAN, IMAGENET_STD
from xkd.settings import Finetune

SWITCH = 0.5  # where both are on: how often cutmix takes the place of mixup (paper)


def augment(view: Tensor, modality: str, settings: Finetune) -> Tensor:
    """Augments each clip by itself.

    Frames (B, 3, T, H, W) get RandAugment and erasing; log-mels (B, 1, M, F) get time warp and masks.
    """
    changes = dict(zip(MODALITIES, (_frames_augmented, _log_mels_augmented), strict=True))
    return changes[modality](view, settings)


def _frames_augmented(view: Tensor, settings: Finetune) -> Tensor:
    if settings.rand_augment[0]:
        view = torch.stack([_rand_augmented(clip, settings) for clip in view])
    return torch.stack([_erased(clip, settings.erasing) for clip in view]) if settings.erasing else view


def _log_mels_augmented(view: Tensor, settings: Finetune) -> Tensor:
    if settings.time_warp:
        view = torch.stack([_warped(clip, settings.time_warp) for clip in view])
    if settings.mel_masks[0] or settings.time_masks[0]:
        view = torch.stack([_masked(clip, settings) for clip in view])
    return view


def mix(view: Tensor, target: Tensor, settings: Finetune) -> tuple[Tensor, Tensor]:
    """Mixes a batch with itself by mixup or cutmix, and labels in the same proportion.

    Args:
        view: (B, ...); cutmix cuts its last two axes.
        target: (B, classes), sums to 1 per clip.
    """
    if not (settings.mixup or settings.cutmix) or len(view) < 2:
        return view, target
    cuts = settings.cutmix and (not settings.mixup or torch.rand(()).item() < SWITCH)
    strength = settings.cutmix if cuts else settings.mixup
    weight = torch.distributions.Beta(strength, strength).sample().item()
    other, other_target = view.roll(1, 0), target.roll(1, 0)
    if cuts:
        rows, columns = view.shape[-2:]
        height, width = (round(length * (1 - weight) ** 0.5) for length in (rows, columns))
        top, left = (int(torch.randint(room + 1, ())) for room in (rows - height, columns - width))
        view = view.clone()
        view[..., top : top + height, left : left + width] = other[..., top : top + height, left : left + width]
        weight = 1 - height * width / (rows * columns)
    else:
        view = weight * view + (1 - weight) * other
    return view, weight * target + (1 - weight) * other_target


def _rand_augmented(clip: Tensor, settings: Finetune) -> Tensor:
    """Applies the same operations to all frames of a clip (3, T, H, W)."""
    from torchvision.transforms import v2

    operations, magnitude = settings.rand_augment
    mean, std = _colours(clip.device)
    frames = ((clip.transpose(0, 1) * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    changed: Tensor = v2.RandAugment(num_ops=operations, magnitude=magnitude)(frames)
    return ((changed.float() / 255 - mean) / std).transpose(0, 1)


@cache
def _colours(device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of colours, copied to a device once, since that waits for it."""
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return mean, std


def _erased(clip: Tensor, probability: float) -> Tensor:
    from torchvision.transforms import v2

    frames: Tensor = v2.RandomErasing(p=probability)(clip.transpose(0, 1))
    return frames.transpose(0, 1)


def _warped(clip: Tensor, most: int) -> Tensor:
    """Moves a column of a log-mel (1, M, F) by up to `most` and stretches both sides to it: SpecAugment's time warp."""
    columns = clip.shape[-1]
    room = min(most, (columns - 1) // 2)
    column = int(torch.randint(room, columns - room, ()))
    moved = column + int(torch.randint(-room, room + 1, ()))
    if not (0 < column < columns and 0 < moved < columns):
        return clip
    sides = (clip[..., :column], moved), (clip[..., column:], columns - moved)
    return torch.cat(
        [F.interpolate(side, length, mode="linear", align_corners=False) for side, length in sides], dim=-1
    )


def _masked(clip: Tensor, settings: Finetune) -> Tensor:
    """Sets bands and columns to 0, the mean of normalised log-mels: SpecAugment (Park et al. 2019)."""
    from torchaudio.transforms import FrequencyMasking, TimeMasking

    for kind, (count, width) in ((FrequencyMasking, settings.mel_masks), (TimeMasking, settings.time_masks)):
        for _ in range(count):
            clip = kind(width)(clip)
    return clip
