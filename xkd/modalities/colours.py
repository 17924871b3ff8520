"""Colour changes of a video (3, T, H, W) in [0, 1], in place. The formulas are those of torchvision's float operations.

`hue`, `luminance` and `convolve` take videos of several clips, too, (B, 3, T, H, W), for `xkd.modalities.recolour`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLUR_SIGMA = (0.1, 2.0)  # pixels
WIDEST_BLUR = math.ceil(3 * BLUR_SIGMA[1])
CHANNEL = -4


def brightness(video: Tensor, shift: float) -> None:
    """Scales by 1 + shift."""
    video.mul_(max(0.0, 1 + shift)).clamp_(0, 1)


def contrast(video: Tensor, shift: float) -> None:
    """Moves away from the mean grey of each frame by 1 + shift."""
    _blend(video, luminance(video).mean(dim=(-2, -1), keepdim=True), shift)


def saturation(video: Tensor, shift: float) -> None:
    """Moves away from the grey frame by 1 + shift."""
    _blend(video, luminance(video), shift)


def hue(video: Tensor, shift: float | Tensor) -> None:
    """Turns the colour wheel by `shift` of its circumference; value and saturation (HSV) stay.

    With the angle in sixths of the wheel and green at 0, a channel lies above the smallest one by chroma times a
    trapezium around its own angle. The trapezia of red, green and blue are then differences of absolute values.

    Args:
        shift: a number, or one for each clip, (B, 1, 1, 1).
    """
    red, green, blue = video.unbind(CHANNEL)
    top = torch.maximum(red, green)
    torch.maximum(top, blue, out=top)
    low = torch.minimum(red, green)
    torch.minimum(low, blue, out=low)
    chroma = torch.sub(top, low).clamp_min_(1e-12)  # no division by zero where there is no colour
    angle = torch.where(top == green, blue - red, (red - green).add_(chroma, alpha=2))
    angle = torch.where(top == red, (green - blue).sub_(chroma, alpha=2), angle)
    angle.div_(chroma).add_(6 * shift)
    angle.sub_(torch.mul(angle, 1 / 6).round_(), alpha=6)
    top.add_(chroma)
    low.sub_(chroma)
    torch.addcmul(top, chroma, angle.abs().clamp_(1, 2), value=-1, out=green)
    torch.addcmul(low, chroma, torch.sub(angle, 1).abs_().clamp_(1, 2), out=red)
    torch.addcmul(low, chroma, angle.add_(1).abs_().clamp_(1, 2), out=blue)


JITTER = (brightness, contrast, saturation, hue)


def grey(video: Tensor) -> None:
    """Replaces all three channels by the luminance."""
    video.copy_(luminance(video).expand_as(video))


def blur(video: Tensor, sigma: float) -> None:
    """Blurs square frames by a Gaussian, sigma in pixels; mirrored at the edges.

    The kernel reaches three sigmas, as far as the frame allows.
    """
    sigma_1 = torch.tensor([sigma])
    convolve(video[None], blur_matrix(video.shape[-1], sigma_1, math.ceil(float(3 * sigma_1))))


def convolve(video: Tensor, matrix_BSS: Tensor) -> None:
    """Multiplies rows and columns of frames (B, 3, T, size, size) by a matrix of their clip."""
    kernel = matrix_BSS.transpose(1, 2)
    for _ in range(2):
        video.copy_(torch.bmm(video.flatten(1, 3), kernel).view(video.shape).transpose(-1, -2))


def blur_matrix(size: int, sigma_B: Tensor, reach: int) -> Tensor:
    """Computes what each pixel of a blurred row takes from those of the row, mirroring included: (B, size, size).

    Args:
        reach: at least that of the widest kernel; to find out which that is, a GPU would have to be waited for.
    """
    radius_B, reach = (3 * sigma_B).ceil().clamp_max(size - 1), min(reach, size - 1)
    offset = torch.arange(-reach, reach + 1, device=sigma_B.device)
    weight = torch.exp(-0.5 * (offset / sigma_B[:, None]) ** 2) * (offset.abs() <= radius_B[:, None])
    weight = (weight / weight.sum(1, keepdim=True)).float()
    place = (torch.arange(size, device=sigma_B.device)[:, None] + offset).abs()
    place = torch.minimum(place, 2 * (size - 1) - place)
    matrix = torch.zeros(len(sigma_B), size, size, device=sigma_B.device)
    shape = (len(sigma_B), size, len(offset))
    return matrix.scatter_add_(2, place.expand(shape), weight[:, None].expand(shape))


def luminance(video: Tensor) -> Tensor:
    """Computes the luminance of each pixel, (..., 1, T, H, W)."""
    red, green, blue = video.unbind(CHANNEL)
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(CHANNEL)


def _blend(video: Tensor, other: Tensor, shift: float) -> None:
    factor = max(0.0, 1 + shift)
    video.mul_(factor).add_(other, alpha=1 - factor).clamp_(0, 1)
