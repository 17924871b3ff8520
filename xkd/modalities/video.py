"""Video: frames (T, 3, H, W) uint8 of a clip to views (3, T, size, size), normalised (paper section A.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xkd.errors import UserError
from xkd.modalities.base import ClipSource, Cutter, Draw, Feeder, Modality, between, position
from xkd.modalities.colours import Recolouring

if TYPE_CHECKING:
    from xkd.settings import VideoView
    from xkd.settings.params import Base

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_ASPECT = (3 / 4, 4 / 3)
CACHE_VALUES = 2**20  # 4 MB: fewer values cost more calls, more values leave a processor's cache
DEVICE_VALUES = 2**26

_MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1, 1)
_STD = torch.tensor(IMAGENET_STD).view(3, 1, 1, 1)


class VideoCutter(Cutter):
    """Cuts views out of the frames of a clip; every view begins on a frame."""

    def __init__(self, settings: Base, views: Sequence[VideoView], remember: bool = False) -> None:
        self.clips, self.views = settings.clips, views

    def start(self, seconds: float, frames: int, uniform: float) -> float:
        """Maps a draw to the second at which `frames` frames of a clip begin, uniform over the frames."""
        room = max(round(seconds * self.clips.fps) - frames, 0)
        return min(position(uniform, room), room) / self.clips.fps

    def local_start(self, seconds: float, number: int, draw: Draw[float]) -> float:
        return self.start(seconds, self.views[number].frames, draw.time)

    def begin(self, clips: Sequence[ClipSource]) -> None:
        """Does nothing: only the frames of one clip are in memory."""

    def cut(self, clip: ClipSource, number: int, start: float, draw: Draw[float]) -> Tensor:
        view = self.views[number]
        frames = self._frames(clip, start, view)
        if view.crop_area == (0, 0) and min(frames.shape[-2:]) < view.size:
            raise UserError(
                f"clip {clip.id}: {frames.shape[-1]} x {frames.shape[-2]} pixels is smaller than a view of "
                f"{view.size}; raise clips.size and prepare again, or lower the size of the video view"
            )
        return crop(frames, view, draw)

    def finish(self, cuts: Tensor, number: int, draw: Draw[Tensor] | None) -> Tensor:
        return normalised(cuts, draw and Recolouring(self.views[number], draw))

    def plain(self, clip: ClipSource, start: float, places: Sequence[float]) -> list[Tensor]:
        frames, size = self._frames(clip, start, self.views[0]), self.views[0].size
        return [_square(frames, size, place) for place in places]

    def _frames(self, clip: ClipSource, start: float, view: VideoView) -> Tensor:
        """Reads the frames of a view. A clip of nominal length is read once, a longer one view by view."""
        first, name = round(start * self.clips.fps), Video.name
        if clip.nominal:
            whole = clip.whole(name)
            first = min(first, max(len(whole) - view.frames, 0))
            frames = whole[first : first + view.frames]
        else:
            frames = clip.part(name, self.clips.fps, first, view.frames)
        if len(frames) >= view.frames:
            return frames
        return torch.from_numpy(Video().padded(frames.numpy(), view.frames, self.clips.pad))


class VideoFeeder(Feeder):
    """Resizes, crops and normalises uint8 frames (B, T, H, W, 3): (B, 3, T', size, size)."""

    def forward(self, batch: Tensor, device: torch.device, rate: int | None = None) -> Tensor:
        if batch.ndim != 5 or batch.shape[-1] != 3 or batch.dtype != torch.uint8:
            raise UserError(
                f"a video encoder takes uint8 frames (T, H, W, 3), not {batch.dtype} {tuple(batch.shape[1:])}"
            )
        fed = self.settings
        frames = batch[:, : self.whole(batch.shape[1])].permute(0, 1, 4, 2, 3).to(device)
        if min(frames.shape[-2:]) != fed.short_side:
            frames = resized(frames.flatten(0, 1), [fed.short_side]).unflatten(0, frames.shape[:2])
        frames = _square(frames, fed.size, 0.5).float().div_(255)
        mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (fed.mean, fed.std))
        return ((frames - mean) / std).transpose(1, 2)


class Video(Modality):
    """Frames; a view is (3, T, H, W) with ImageNet's mean and standard deviation."""

    name, channels, words, unit = "video", 3, "frames", "frames"
    time_axis, clip_axes, cropped = 0, 4, True
    filled = "the last frame is held"
    cutter, raw_cutter, feeder = VideoCutter, VideoCutter, VideoFeeder

    def held(self, values: np.ndarray, missing: int) -> np.ndarray:
        return np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])

    def frames(self, settings: Base) -> int:
        return round(settings.clips.seconds * settings.clips.fps)

    def images(self, view: Tensor) -> Tensor:
        return (view * _STD.to(view.device) + _MEAN.to(view.device)).clamp(0, 1).permute(0, 2, 3, 4, 1)

    def blank(self, patches_BNP: Tensor) -> Tensor:
        return torch.zeros((), device=patches_BNP.device)  # mid grey

    def stills(self, images: Tensor, true: Tensor) -> Tensor:
        return images[:, images.shape[1] // 2].permute(0, 3, 1, 2).clamp(0, 1)


def frames_between(first: int, count: int | None, length: int) -> range:
    """Lists the numbers of `count` frames of `length` from `first` on (None: all of them); at least the last frame."""
    last = length if count is None else min(first + count, length)
    return range(min(first, last - 1), last)


def crop(frames: Tensor, view: VideoView, draw: Draw[float]) -> Tensor:
    """Crops frames (T, 3, H, W) as a view asks, mirrored or not: (T, 3, size, size); all uint8."""
    rows, columns = frames.shape[-2:]
    if view.crop_area == (0, 0):
        height = width = view.size
    else:
        height, width = _crop_size(rows, columns, view.crop_area, draw.attempts)
    top, left = position(draw.row, rows - height), position(draw.column, columns - width)
    cropped = frames[..., top : top + height, left : left + width]
    if (height, width) != (view.size, view.size):
        cropped = resized(cropped, [view.size, view.size])
    return cropped.flip(-1) if draw.flip < view.flip else cropped


def normalised(cropped: Tensor, recolour: Recolouring | None = None) -> Tensor:
    """Converts uint8 frames (B, T, 3, size, size) to normalised views (B, 3, T, size, size).

    A few clips or frames at a time, so that they stay in a processor's cache, and do not fill a GPU.

    Args:
        recolour: changes their colours.
    """
    clips, frames, *image = cropped.shape
    videos = torch.empty(clips, 3, frames, *image[1:], device=cropped.device)
    images = max((CACHE_VALUES if cropped.device.type == "cpu" else DEVICE_VALUES) // math.prod(image), 1)
    for some in _slices(clips, max(images // frames, 1)):
        for shown in _slices(frames, images):
            part = videos[some, :, shown]
            part.copy_(cropped[some, shown].transpose(1, 2)).div_(255)
            if recolour:
                recolour(part, some)
            for channel, mean, std in zip(part.unbind(1), IMAGENET_MEAN, IMAGENET_STD, strict=True):
                channel.sub_(mean).div_(std)
    return videos


def _slices(length: int, step: int) -> list[slice]:
    return [slice(first, first + step) for first in range(0, length, step)]


def resized(frames: Tensor, size: list[int]) -> Tensor:
    """Resizes frames (..., H, W) to (height, width), or so that the shorter side is `size`, a list of one."""
    # Imported where used: importing it takes seconds, and evaluation needs none of it.
    from torchvision.transforms.v2 import functional

    result: Tensor = functional.resize_image(frames, size, antialias=True)
    return result


def _square(frames: Tensor, size: int, place: float) -> Tensor:
    """Cuts a square at a place along the longer side, in the middle of the shorter one; enlarges small frames."""
    if min(frames.shape[-2:]) < size:
        frames = resized(frames, [size])
    height, width = frames.shape[-2:]
    top = round((height - size) * (place if height > width else 0.5))
    left = round((width - size) * (place if width >= height else 0.5))
    return frames[..., top : top + size, left : left + size]


def _crop_size(rows: int, columns: int, area: tuple[float, float], attempts: Sequence[float]) -> tuple[int, int]:
    """Draws height and width of a box with uniform area and log-uniform aspect; the first candidate that fits."""
    low, high = math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1])
    for area_draw, aspect_draw in zip(attempts[::2], attempts[1::2], strict=True):
        pixels = between(area_draw, area) * rows * columns
        aspect = math.exp(between(aspect_draw, (low, high)))
        height, width = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
        if 0 < height <= rows and 0 < width <= columns:
            return height, width
    return min(rows, round(columns / CROP_ASPECT[0])), min(columns, round(rows * CROP_ASPECT[1]))
