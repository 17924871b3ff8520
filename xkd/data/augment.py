"""Augmentations of one view (released configuration of the paper), given their random draws.

Each view gets one table of uniform numbers, drawn at once. Every decision reads its own
column, whether or not the settings use it, so that two ablations which differ in one
augmentation still see the same crops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from xkd.data import colours
from xkd.data.logmel import LogMelSpectrogram
from xkd.settings import AudioView, VideoView

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
ASPECT = (3 / 4, 4 / 3)
ATTEMPTS = 10
BLUR_SIGMA = (0.1, 2.0)
TIME_CANVAS = 1.5  # length of the virtual canvas around a log-mel; it is as high as the log-mel
CROP_SCALE = (0.6, 1.5)
CUBIC = -0.75  # of the bicubic kernel, as in torch
JITTER = (colours.brightness, colours.contrast, colours.saturation, colours.hue)
CACHE_VALUES = 2**18  # about the second-level cache of a core
DEVICE_VALUES = 2**26

_MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1, 1)
_STD = torch.tensor(IMAGENET_STD).view(3, 1, 1, 1)


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
        time, row, column, height, width, flip, volume, grey, blur, sigma, *lists = numbers
        return cls(time, row, column, height, width, flip, volume, grey, blur, sigma, lists[:4], lists[4:8], lists[8:])


def draw_table(views: int, generator: torch.Generator) -> Tensor:
    """Draws (views, 2, columns) for both modalities; earlier views do not depend on how many follow."""
    return torch.rand(views, 2, 18 + 2 * ATTEMPTS, generator=generator)


def named(table: Tensor) -> list[dict[str, Draw]]:
    """The draws of each view and modality in a table of `draw_table`."""
    return [{"video": Draw.split(video), "audio": Draw.split(audio)} for video, audio in table.tolist()]


def crop(frames: Tensor, view: VideoView, draw: Draw) -> Tensor:
    """What a view shows of pictures (T, 3, H, W), mirrored or not: (T, 3, size, size); all uint8."""
    rows, columns = frames.shape[-2:]
    if view.crop_area == (0, 0):
        height = width = view.size
    else:
        height, width = _crop_size(rows, columns, view.crop_area, draw.attempts)
    top, left = _position(draw.row, rows - height), _position(draw.column, columns - width)
    pictures = frames[..., top : top + height, left : left + width]
    if (height, width) != (view.size, view.size):
        pictures = _resized(pictures, [view.size, view.size])
    return pictures.flip(-1) if draw.flip < view.flip else pictures


def augment_video(pictures: Tensor, view: VideoView, draws: Sequence[Draw]) -> Tensor:
    """Cropped pictures (B, T, 3, size, size), uint8, and a draw for each clip -> normalised (B, 3, T, size, size).

    A few pictures at a time, so that they stay in a processor's cache, or a batch does not fill a GPU.
    """
    clips, frames, *picture = pictures.shape
    films = torch.empty(clips, 3, frames, *picture[1:], device=pictures.device)
    at_once = max((CACHE_VALUES if pictures.device.type == "cpu" else DEVICE_VALUES) // math.prod(picture), 1)
    clip_step, frame_step = max(at_once // frames, 1), min(at_once, frames)
    for clip in range(0, clips, clip_step):
        for frame in range(0, frames, frame_step):
            part = slice(clip, clip + clip_step), slice(frame, frame + frame_step)
            film = films[part[0], :, part[1]]
            film.copy_(pictures[part].transpose(1, 2))
            _recolour(film.div_(255), view, draws[part[0]])
            film.sub_(_MEAN.to(film.device)).div_(_STD.to(film.device))
    return films


def augment_audio(power: Tensor, view: AudioView, draws: Sequence[Draw], logmel: LogMelSpectrogram) -> Tensor:
    """Mel power (B, 1, mels, frames) and a draw for each clip -> normalised log-mel views of the same shape."""
    gains = [volume_gain(view, draw) ** 2 for draw in draws]
    scaled = logmel.scaled(power * (gains[0] if len(gains) == 1 else _column(gains, power)))
    return resized_crop_logmel(scaled, draws) if view.resized_crop else scaled


def resize_shorter_side(picture: Tensor, size: int) -> Tensor:
    """Pictures (T, 3, H, W) scaled so that the shorter of H and W is `size`."""
    return _resized(picture, [size])


def normalise(picture: Tensor) -> Tensor:
    """Pictures (T, 3, H, W) in [0, 1] -> (3, T, H, W), with ImageNet mean and standard deviation."""
    return picture.transpose(0, 1).contiguous().sub(_MEAN).div_(_STD)


def volume_gain(view: AudioView, draw: Draw) -> float:
    """Factor on the waveform, uniform in 1 - volume to 1 + volume."""
    return _between(draw.volume, (1 - view.volume, 1 + view.volume))


def resized_crop_logmel(logmel: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Random resized crop (B, 1, mels, frames) -> same shape, bicubic.

    The log-mel lies in the middle of a canvas of zeros (its normalised mean) 1.5 times as
    long; a box of 0.6 to 1.5 times its bands and frames, cut to the canvas, is resized back.
    """
    bands, steps = logmel.shape[-2:]
    length = int(TIME_CANVAS * steps)
    before = (length - steps) // 2
    rows, columns = [], []
    for draw in draws:
        height = min(max(int(_between(draw.height, CROP_SCALE) * bands), 1), bands)
        width = min(max(int(_between(draw.width, CROP_SCALE) * steps), 1), length)
        rows.append((_position(draw.row, bands - height), height))
        columns.append((_position(draw.column, length - width) - before, width))
    return _resizing(bands, rows, logmel) @ logmel @ _resizing(steps, columns, logmel).transpose(-1, -2)


def _resized(pictures: Tensor, size: list[int]) -> Tensor:
    """To (height, width), or so that the shorter side is `size`, a list of one."""
    # Imported where used: importing it takes seconds, and evaluation needs none of it.
    from torchvision.transforms.v2 import functional

    resized: Tensor = functional.resize_image(pictures, size, antialias=True)
    return resized


def _resizing(size: int, boxes: list[tuple[int, int]], like: Tensor) -> Tensor:
    """(B, 1, size, size): how many of `size` values each makes of a box (first, length) of them; zeros lie outside."""
    first, length = torch.tensor(boxes, dtype=torch.float64, device=like.device).T[..., None, None]
    taps = torch.arange(-1, 3, device=like.device)
    place = torch.arange(size, device=like.device)[:, None] * (length - 1) / max(size - 1, 1)
    near = place.floor() + taps
    away = (place - near).abs()
    inner = ((CUBIC + 2) * away - (CUBIC + 3)) * away**2 + 1
    outer = CUBIC * (((away - 5) * away + 8) * away - 4)
    source = (torch.minimum(near.clamp_min(0), length - 1) + first).long()
    weight = torch.where(away <= 1, inner, outer) * ((source >= 0) & (source < size))
    matrix = like.new_zeros(len(boxes), size, size)
    return matrix.scatter_add_(2, source.clamp(0, size - 1), weight.to(like.dtype))[:, None]


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


def _recolour(films: Tensor, view: VideoView, draws: Sequence[Draw]) -> None:
    """Jitter, grey and blur of films (B, 3, T, H, W) in [0, 1], in place; jitter of strength 0 is left out."""
    orders = [sorted(range(len(JITTER)), key=draw.order.__getitem__) for draw in draws]
    for place in range(len(JITTER)):
        for kind, change in enumerate(JITTER):
            strength = view.jitter[kind]
            chosen = [number for number, order in enumerate(orders) if strength and order[place] == kind]
            shifts = [_between(draws[number].jitter[kind], (-strength, strength)) for number in chosen]
            _change_by(films, chosen, change, shifts)
    _change(films, [number for number, draw in enumerate(draws) if draw.grey < view.grey], colours.grey)
    chosen = [number for number, draw in enumerate(draws) if draw.blur < view.blur]
    _change_by(films, chosen, colours.blur, [_between(draws[number].sigma, BLUR_SIGMA) for number in chosen])


def _change(films: Tensor, chosen: list[int], change: Callable[[Tensor], None]) -> None:
    """Applies a change, in place, to some of the films."""
    if not chosen:
        return
    some = films if len(chosen) == len(films) else films[chosen]
    change(some)
    if some is not films:
        films[chosen] = some


def _change_by(
    films: Tensor, chosen: list[int], change: Callable[[Tensor, colours.Strength], None], strengths: list[float]
) -> None:
    """The same, each film by a strength of its own."""
    if chosen:
        strength = strengths[0] if len(strengths) == 1 else _column(strengths, films)
        _change(films, chosen, lambda some: change(some, strength))


def _column(values: list[float], like: Tensor) -> Tensor:
    """A value for each clip of `like`, to be multiplied with it."""
    return torch.tensor(values, device=like.device).view(-1, *[1] * (like.ndim - 1))


def _between(uniform: float, bounds: tuple[float, float]) -> float:
    return bounds[0] + uniform * (bounds[1] - bounds[0])


def _position(uniform: float, room: int) -> int:
    return int(uniform * (room + 1))
