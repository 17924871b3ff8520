"""Augmentations of one view (released configuration of the paper), given their random draws.

Each view gets one table of uniform numbers, drawn at once. Every decision reads its own
column, whether or not the settings use it, so that two ablations which differ in one
augmentation still see the same crops.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor

from xkd.settings import AudioView, VideoView

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10
BLUR_SIGMA = (0.1, 2.0)
TIME_CANVAS = 1.5  # length of the virtual canvas around a log-mel; it is as high as the log-mel
CROP_SCALE = (0.6, 1.5)

_MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1, 1)
_STD = torch.tensor(IMAGENET_STD).view(3, 1, 1, 1)


def _torchvision():
    """Imported where used: importing it takes seconds, and evaluation needs none of it."""
    from torchvision.transforms.v2 import functional

    return functional


class Draw(NamedTuple):
    """Uniform numbers in [0, 1) of one view; `attempts` are (area, aspect) of candidate crops."""

    time: float
    row: float
    column: float
    height: float
    width: float
    flip: float
    volume: float
    grey: float
    blur: float
    sigma: float
    jitter: list[float]
    order: list[float]
    attempts: list[float]

    @classmethod
    def split(cls, numbers: list[float]) -> Draw:
        """Names the columns of one row of `draw_table`."""
        return cls(*numbers[:10], numbers[10:14], numbers[14:18], numbers[18:])


def draw_table(views: int, generator: torch.Generator) -> list[dict[str, Draw]]:
    """Draws for `views` views of both modalities; earlier views do not depend on how many follow."""
    rows = torch.rand(views, 2, 18 + 2 * ATTEMPTS, generator=generator).tolist()
    return [{"video": Draw.split(video), "audio": Draw.split(audio)} for video, audio in rows]


def augment_video(frames: Tensor, view: VideoView, draw: Draw) -> Tensor:
    """uint8 pictures (T, 3, H, W) -> one normalised view (3, T, size, size); one draw for all frames."""
    picture = _random_crop(frames, view, draw)
    if draw.flip < view.flip:
        picture = _torchvision().horizontal_flip_image(picture)
    picture = picture.to(torch.float32).div_(255)
    picture = _colour_jitter(picture, view.jitter, draw)
    if draw.grey < view.grey:
        picture = _torchvision().rgb_to_grayscale_image(picture, num_output_channels=3)
    if draw.blur < view.blur:
        picture = _blur(picture, _between(draw.sigma, BLUR_SIGMA))
    return normalise(picture)


def resize_shorter_side(picture: Tensor, size: int) -> Tensor:
    """Pictures (T, 3, H, W) scaled so that the shorter of H and W is `size`."""
    return _torchvision().resize_image(picture, [size], antialias=True)


def normalise(picture: Tensor) -> Tensor:
    """Pictures (T, 3, H, W) in [0, 1] -> (3, T, H, W), with ImageNet mean and standard deviation."""
    return picture.transpose(0, 1).contiguous().sub(_MEAN).div_(_STD)


def volume_gain(view: AudioView, draw: Draw) -> float:
    """Factor on the waveform, uniform in 1 - volume to 1 + volume."""
    return _between(draw.volume, (1 - view.volume, 1 + view.volume))


def resized_crop_logmel(logmel: Tensor, draw: Draw) -> Tensor:
    """Random resized crop (1, mels, frames) -> same shape.

    The log-mel lies in the middle of a canvas of zeros (its normalised mean) 1.5 times as
    long; a box of 0.6 to 1.5 times its bands and frames, cut to the canvas, is resized back.
    """
    bands, steps = logmel.shape[-2:]
    length = int(TIME_CANVAS * steps)
    height = min(max(int(_between(draw.height, CROP_SCALE) * bands), 1), bands)
    width = min(max(int(_between(draw.width, CROP_SCALE) * steps), 1), length)
    top, left = _position(draw.row, bands - height), _position(draw.column, length - width)
    before = (length - steps) // 2
    canvas = nnf.pad(logmel, (before, length - steps - before))
    box = canvas[None, :, top : top + height, left : left + width]
    return nnf.interpolate(box, size=(bands, steps), mode="bicubic", align_corners=True)[0]


def _random_crop(frames: Tensor, view: VideoView, draw: Draw) -> Tensor:
    rows, columns = frames.shape[-2:]
    if view.crop_area == (0, 0):
        height = width = view.size
    else:
        height, width = _crop_size(rows, columns, view.crop_area, draw.attempts)
    top, left = _position(draw.row, rows - height), _position(draw.column, columns - width)
    picture = frames[..., top : top + height, left : left + width]
    if (height, width) == (view.size, view.size):
        return picture
    return _torchvision().resize_image(picture, [view.size, view.size], antialias=True)


def _crop_size(rows: int, columns: int, area: tuple[float, float], attempts: list[float]) -> tuple[int, int]:
    """Height and width of a box with uniform area and log-uniform aspect; the first candidate that fits."""
    low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
    for area_draw, aspect_draw in zip(attempts[::2], attempts[1::2], strict=True):
        pixels = _between(area_draw, area) * rows * columns
        aspect = math.exp(_between(aspect_draw, (low, high)))
        height, width = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
        if 0 < height <= rows and 0 < width <= columns:
            return height, width
    return min(rows, round(columns / ASPECT[0])), min(columns, round(rows * ASPECT[1]))


def _colour_jitter(picture: Tensor, strengths: tuple[float, ...], draw: Draw) -> Tensor:
    """Brightness, contrast, saturation and hue in random order; strengths of 0 are left out."""
    for kind in sorted(range(4), key=draw.order.__getitem__):
        strength = strengths[kind]
        if strength == 0:
            continue
        shift = _between(draw.jitter[kind], (-strength, strength))
        if kind == 0:
            picture = _torchvision().adjust_brightness_image(picture, max(0.0, 1 + shift))
        elif kind == 1:
            picture = _torchvision().adjust_contrast_image(picture, max(0.0, 1 + shift))
        elif kind == 2:
            picture = _torchvision().adjust_saturation_image(picture, max(0.0, 1 + shift))
        else:
            picture = _torchvision().adjust_hue_image(picture, shift)
    return picture


def _blur(picture: Tensor, sigma: float) -> Tensor:
    """Gaussian blur; the kernel reaches three sigmas, as far as the picture allows."""
    radius = min(math.ceil(3 * sigma), min(picture.shape[-2:]) - 1)
    return _torchvision().gaussian_blur_image(picture, [2 * radius + 1] * 2, [sigma] * 2)


def _between(uniform: float, bounds: tuple[float, float]) -> float:
    return bounds[0] + uniform * (bounds[1] - bounds[0])


def _position(uniform: float, room: int) -> int:
    return int(uniform * (room + 1))
