"""Colour changes of videos (B, 3, T, H, W) in [0, 1]. The formulas are those of torchvision's operations.

What a clip gets is decided by masks: every change is computed for all clips and has no effect on those that it is not
for, since a GPU that had to tell which clips are to be changed would be waited for. On a processor, what none of the
clips needs is left out. Brightness, contrast and saturation are one formula, a blend with another picture, and a clip's
hue is turned between some of its blends.

Shapes: B clips, K blends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xkd.modalities.base import Draw, between, per_clip

if TYPE_CHECKING:
    from xkd.settings import VideoView

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
BLUR_SIGMA = (0.1, 2.0)  # pixels
WIDEST_BLUR = math.ceil(3 * BLUR_SIGMA[1])


class Recolouring:
    """Jitters, greys and blurs the videos of B clips.

    Args:
        view: its settings; jitter of strength 0 is left out.
        draw: of all clips. One draw serves all frames of a clip.
    """

    def __init__(self, view: VideoView, draw: Draw[Tensor]) -> None:
        self.view, strength = view, view.jitter[HUE]
        self._before_hue, self._after_hue = _blends(view, draw)
        self._turn = between(draw.jitter[HUE], (-strength, strength))
        self._greyed, self._blurred = draw.grey < view.grey, draw.blur < view.blur
        if view.blur:
            matrix = blur_matrix(view.size, between(draw.sigma, BLUR_SIGMA))
            as_it_is = torch.eye(view.size, device=matrix.device)
            self._matrix = torch.where(self._blurred.view(-1, 1, 1), matrix, as_it_is)

    def __call__(self, videos: Tensor, clips: slice) -> None:
        """Changes videos of some of the clips, in place."""
        for shares_3B in self._before_hue:
            _blend(videos, shares_3B[:, clips])
        if self.view.jitter[HUE]:
            hue(videos, self._turn[clips])
        for shares_3B in self._after_hue:
            _blend(videos, shares_3B[:, clips])
        if self.view.grey and _any(self._greyed[clips]):
            chosen = self._greyed[clips].view(-1, 1, 1, 1, 1)
            videos.copy_(torch.where(chosen, luminance(videos), videos))
        if self.view.blur and _any(self._blurred[clips]):
            convolve(videos, self._matrix[clips])


def _any(chosen_B: Tensor) -> bool:
    """Tells whether a change is for any of the clips; on a GPU it might be."""
    return chosen_B.device.type != "cpu" or bool(chosen_B.any())


def _blends(view: VideoView, draw: Draw[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
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
    blends_B1 = torch.full_like(turns_BK[:, :1], len(kinds))
    if view.jitter[HUE]:
        blends_B1 = (order_BK <= draw.order[HUE][:, None]).sum(1, keepdim=True)
    early_BK = torch.arange(len(kinds), device=turns_BK.device) < blends_B1
    both = []
    for own_BK in (torch.where(early_BK, factor_BK, 1), torch.where(early_BK, 1, factor_BK)):
        others = [(1 - own_BK) * (turns_BK == _place(kinds, kind)) for kind in (CONTRAST, SATURATION)]
        both.append(torch.stack([own_BK, *others]).float().unbind(2))
    return both[0], both[1] if view.jitter[HUE] else ()


def _place(kinds: list[int], kind: int) -> int:
    return kinds.index(kind) if kind in kinds else -1


def _blend(videos: Tensor, shares_3B: Tensor) -> None:
    own, mean, grey = (per_clip(share_B, videos) for share_B in shares_3B)
    if not _any(own != 1):
        return
    other = None
    if _any(mean) or _any(grey):
        pixels = luminance(videos)
        other = pixels.mean(dim=(-2, -1), keepdim=True) * mean
        if _any(grey):
            other = pixels.mul_(grey).add_(other)
    videos.mul_(own)
    if other is not None:
        videos.add_(other)
    videos.clamp_(0, 1)


def hue(videos: Tensor, turn_B: Tensor) -> None:
    """Turns the colour wheel by a share of its circumference; value and saturation (HSV) stay.

    With the angle in sixths of the wheel and green at 0, a channel lies above the smallest one by chroma times a
    trapezium around its own angle. The trapezia of red, green and blue are then differences of absolute values.
    """
    red, green, blue = videos.unbind(1)
    top = torch.maximum(red, green)
    torch.maximum(top, blue, out=top)
    low = torch.minimum(red, green)
    torch.minimum(low, blue, out=low)
    chroma = torch.sub(top, low).clamp_min_(1e-12)  # no division by zero where there is no colour
    angle = torch.where(top == green, blue - red, (red - green).add_(chroma, alpha=2))
    angle = torch.where(top == red, (green - blue).sub_(chroma, alpha=2), angle)
    angle.div_(chroma).add_(per_clip(6 * turn_B, angle))
    angle.sub_(torch.mul(angle, 1 / 6).round_(), alpha=6)
    top.add_(chroma)
    low.sub_(chroma)
    torch.addcmul(top, chroma, angle.abs().clamp_(1, 2), value=-1, out=green)
    torch.addcmul(low, chroma, torch.sub(angle, 1).abs_().clamp_(1, 2), out=red)
    torch.addcmul(low, chroma, angle.add_(1).abs_().clamp_(1, 2), out=blue)
    videos.clamp_(0, 1)


def convolve(videos: Tensor, matrix_BSS: Tensor) -> None:
    """Multiplies rows and columns of frames (B, 3, T, size, size) by a matrix of their clip."""
    kernel = matrix_BSS.transpose(1, 2)
    for _ in range(2):
        videos.copy_(torch.bmm(videos.flatten(1, 3), kernel).view(videos.shape).transpose(-1, -2))


def blur_matrix(size: int, sigma_B: Tensor) -> Tensor:
    """Computes what each pixel of a blurred row takes from those of the row: (B, size, size).

    The kernel is a Gaussian, sigma in pixels, that reaches three sigmas, as far as the frame allows; it is mirrored at
    the edges. All are as wide as the widest: to find out how wide that is, a GPU would have to be waited for.
    """
    reach = min(WIDEST_BLUR, size - 1)
    radius_B = (3 * sigma_B).ceil().clamp_max(size - 1)
    offset = torch.arange(-reach, reach + 1, device=sigma_B.device)
    weight = torch.exp(-0.5 * (offset / sigma_B[:, None]) ** 2) * (offset.abs() <= radius_B[:, None])
    weight = (weight / weight.sum(1, keepdim=True)).float()
    place = (torch.arange(size, device=sigma_B.device)[:, None] + offset).abs()
    place = torch.minimum(place, 2 * (size - 1) - place)
    matrix = torch.zeros(len(sigma_B), size, size, device=sigma_B.device)
    shape = (len(sigma_B), size, len(offset))
    return matrix.scatter_add_(2, place.expand(shape), weight[:, None].expand(shape))


def luminance(videos: Tensor) -> Tensor:
    """Computes the luminance of each pixel, (B, 1, T, H, W)."""
    red, green, blue = videos.unbind(1)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)
