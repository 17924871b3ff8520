"""Colour changes of a batch of videos where a GPU augments them: what each clip gets is decided there, by masks.

A GPU that had to tell which clips are to be changed would be waited for; so every change is computed for all clips, and
has no effect on those that it is not for. Brightness, contrast and saturation are one formula, a blend with another
picture, and a clip's hue is turned between some of its blends. Formulas: `xkd.modalities.colours`.

Shapes: B clips, K blends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xkd.modalities import colours
from xkd.modalities.base import Draw, between, per_clip

if TYPE_CHECKING:
    from xkd.settings import VideoView

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(len(colours.JITTER))


def recolour(videos: Tensor, view: VideoView, draw: Draw[Tensor]) -> None:
    """Jitters, greys and blurs videos (B, 3, T, H, W) in [0, 1], in place; jitter of strength 0 is left out."""
    before_hue, after_hue = _shares(view, draw)
    _blend(videos, before_hue)
    if strength := view.jitter[HUE]:
        colours.hue(videos, per_clip(between(draw.jitter[HUE], (-strength, strength)), videos[:, 0]))
        _blend(videos, after_hue)
    if view.grey:
        chosen = (draw.grey < view.grey).view(-1, 1, 1, 1, 1)
        videos.copy_(torch.where(chosen, colours.luminance(videos), videos))
    if view.blur:
        size = videos.shape[-1]
        matrix_BSS = colours.blur_matrix(size, between(draw.sigma, colours.BLUR_SIGMA), colours.WIDEST_BLUR)
        chosen = (draw.blur < view.blur).view(-1, 1, 1)
        colours.convolve(videos, torch.where(chosen, matrix_BSS, torch.eye(size, device=videos.device)))


def _shares(view: VideoView, draw: Draw[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Lists the blends of the clips before and after their hue, each (3, B).

    These are the shares of the picture itself, of each frame's mean grey and of the grey picture. A clip that has fewer
    blends on that side of its hue keeps its picture in the others.
    """
    kinds = [kind for kind in (BRIGHTNESS, CONTRAST, SATURATION) if view.jitter[kind]]
    if not kinds:
        return (), ()
    order_BK = torch.stack([draw.order[kind] for kind in kinds], 1)
    turns_BK = order_BK.argsort(stable=True)
    shifts = [between(draw.jitter[kind], (-view.jitter[kind], view.jitter[kind])) for kind in kinds]
    factor_BK = (1 + torch.stack(shifts, 1)).clamp_min(0).gather(1, turns_BK)
    early_BK = torch.ones_like(turns_BK, dtype=torch.bool)
    if view.jitter[HUE]:
        blends_B1 = (order_BK <= draw.order[HUE][:, None]).sum(1, keepdim=True)
        early_BK = torch.arange(len(kinds), device=turns_BK.device) < blends_B1
    both = []
    for own_BK in (torch.where(early_BK, factor_BK, 1), torch.where(early_BK, 1, factor_BK)):
        others = [(1 - own_BK) * (turns_BK == _place(kinds, kind)) for kind in (CONTRAST, SATURATION)]
        both.append(torch.stack([own_BK, *others]).float().unbind(2))
    return both[0], both[1]


def _place(kinds: list[int], kind: int) -> int:
    return kinds.index(kind) if kind in kinds else -1


def _blend(videos: Tensor, shares: Sequence[Tensor]) -> None:
    for of_3B in shares:
        own, mean, grey = (per_clip(of_B, videos) for of_B in of_3B)
        luminance = colours.luminance(videos)
        other = (luminance.mean(dim=(-2, -1), keepdim=True) * mean).addcmul(luminance, grey)
        torch.addcmul(other, videos, own, out=videos).clamp_(0, 1)
