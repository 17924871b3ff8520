"""The interface of a modality, and the random draws that the augmentations of all modalities share."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # models import this package in projects that may lack pydantic
    from xkd.settings.params import Base

ATTEMPTS = 10  # candidates of a random crop
DRAWS = 18 + 2 * ATTEMPTS  # draws of a view
Number = TypeVar("Number", float, Tensor)


class Draw(NamedTuple, Generic[Number]):
    """Uniform numbers in [0, 1) of one view, or of that view of B clips; `attempts` are (area, aspect) of crops.

    Every decision reads its own column, whether or not the settings use it, so that two ablations which differ in one
    augmentation still see the same crops.
    """

    time: Number
    row: Number
    column: Number
    height: Number
    width: Number
    flip: Number
    volume: Number
    grey: Number
    blur: Number
    sigma: Number
    jitter: Sequence[Number]
    order: Sequence[Number]
    attempts: Sequence[Number]

    @classmethod
    def split(cls, numbers: Sequence[Number]) -> Draw[Number]:
        """Names the columns of a row of `draw_table`, or those (B,) of the rows of several clips."""
        time, row, column, height, width, flip, volume, grey, blur, sigma = numbers[:10]
        lists = (numbers[10:14], numbers[14:18], numbers[18:])
        return cls(time, row, column, height, width, flip, volume, grey, blur, sigma, *lists)


def clip_generator(seed: int, epoch: int, clip_id: str) -> torch.Generator:
    """Makes a generator that depends on its arguments alone: not on workers, batches or order."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{clip_id}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def draw_table(views: int, generator: torch.Generator, plugged: int = 0) -> Tensor:
    """Draws (views, 2, columns) for both modalities; earlier views do not depend on how many follow.

    Args:
        plugged: further columns for augmentations of plugins. Their generator is seeded by `generator`, but is another
            one: plugins change neither our draws nor what `generator` gives next.
    """
    table = torch.rand(views, 2, DRAWS, generator=generator)
    if not plugged:
        return table
    others = clip_generator(generator.initial_seed(), 0, "plugins")
    return torch.cat([table, torch.rand(views, 2, plugged, generator=others)], -1)


class Augmentation(ABC):
    """An augmentation of a plugin; subclass it and register the class in `xkd.registry.augmentations`.

    It runs after ours, in the order of the settings, wherever ours run (`training.augment`).

    Attributes:
        Settings: class of its settings, a subclass of `xkd.settings.base.Settings`.
        modalities: names of those whose views it can change.
        draws: number of uniform numbers that it takes for a view.
    """

    Settings: ClassVar[type]
    modalities: ClassVar[tuple[str, ...]]
    draws: ClassVar[int] = 0

    @staticmethod
    @abstractmethod
    def apply(view: Tensor, draws: Tensor, settings: Any) -> Tensor:
        """Changes normalised views.

        Args:
            view: (B, 3, T, H, W) for video, (B, 1, M, F) for audio.
            draws: (B, draws) in [0, 1), all the randomness there may be, on the device of the view. Reading numbers
                from it makes a GPU wait.
            settings: instance of `Settings`.
        """


class ClipSource(Protocol):
    """One clip as cutters read it: frames (T, 3, H, W) uint8 or samples (S,) float32, counted from 0.

    A `nominal` clip is about as long as the settings say, and read as a whole.
    """

    id: str
    seconds: float
    nominal: bool

    def whole(self, modality: str) -> Tensor: ...

    def part(self, modality: str, rate: float, first: int, count: int) -> Tensor: ...


class Cutter(ABC):
    """Makes the views of one modality under the settings of a run.

    Args:
        settings: those of the run.
        views: settings of each view, the global one first.
        remember: whether to keep what is computed of a clip for the next epoch.
    """

    @abstractmethod
    def __init__(self, settings: Base, views: Sequence[Any], remember: bool = False) -> None: ...

    @abstractmethod
    def local_start(self, seconds: float, number: int, draw: Draw[float]) -> float:
        """Returns the second at which view `number` of a clip of `seconds` begins, from a random draw."""

    @abstractmethod
    def begin(self, clips: Sequence[ClipSource]) -> None:
        """Computes for several clips what cutting them takes, where that is faster than for one after the other."""

    @abstractmethod
    def cut(self, clip: ClipSource, number: int, start: float, draw: Draw[float]) -> Tensor:
        """Cuts what `finish` makes view `number` of: small, and without any operation that a GPU does better.

        Raises:
            UserError: the clip is too small for the view.
        """

    @abstractmethod
    def finish(self, cuts: Tensor, number: int, draw: Draw[Tensor] | None) -> Tensor:
        """Augments the stacked cuts (B, ...) of view `number` and normalises them, on their device.

        A GPU is not waited for. On a processor, the view of a clip does not depend on the other clips.

        Args:
            draw: None: no augmentation.
        """

    @abstractmethod
    def plain(self, clip: ClipSource, start: float, places: Sequence[float]) -> list[Tensor]:
        """Cuts what `finish` makes global views without augmentation of; they begin at `start`.

        Args:
            places: from 0 to 1 along the longer side, one view for each; ignored by modalities that are not `cropped`.
        """


class Feeder(nn.Module):
    """Prepares raw clips as an encoder's config says: `feeder(clips, device, rate)`; `rate` is that of samples.

    Args:
        fed: `input` of the config.
        whole: rounds a number of frames or columns down to whole patches.

    Raises:
        UserError: when called with another shape or type, too short clips or without a rate that is needed.
    """

    def __init__(self, fed: Any, whole: Callable[[int], int]) -> None:
        super().__init__()
        self.settings, self.whole = fed, whole


class Modality(ABC):
    """The interface of a modality: all that the rest of the code needs to know of it.

    Attributes:
        name: as in settings, files and columns.
        channels: of a view.
        words: name of what one sees of a clip.
        unit: name of what `time_axis` of a view counts.
        time_axis: the axis of time of a patch.
        clip_axes: axes of a raw clip as a feeder takes it.
        filled: says what `padded` does with a clip that is too short.
        cropped: whether an evaluation may take several crops of one moment.
        cutter: makes the views of a run.
        raw_cutter: makes those that encoders of others are given (`xkd.encoders.peer`).
        feeder: makes the input (B, channels, ...) of an encoder of raw clips, uint8 frames (B, T, H, W, 3) or samples
            (B, S).
    """

    name: ClassVar[str]
    channels: ClassVar[int]
    words: ClassVar[str]
    unit: ClassVar[str]
    time_axis: ClassVar[int]
    clip_axes: ClassVar[int]
    filled: ClassVar[str]
    cropped: ClassVar[bool]
    cutter: ClassVar[type[Cutter]]
    raw_cutter: ClassVar[type[Cutter]]
    feeder: ClassVar[type[Feeder]]

    def padded(self, values: np.ndarray, length: int, pad: str = "hold") -> np.ndarray:
        """Fills frames (T, ...) or samples (S,) up to `length` where there are fewer.

        Args:
            pad: "hold": the last frame stays, audio goes silent; "loop": both start again from the beginning
                (clips.pad).
        """
        missing = length - len(values)
        if missing <= 0:
            return values
        if pad == "loop" and len(values):
            return values[np.arange(length) % len(values)]
        return self.held(values, missing)

    @abstractmethod
    def held(self, values: np.ndarray, missing: int) -> np.ndarray:
        """Appends what is `missing` to a clip: its last frame, or silence."""

    @abstractmethod
    def frames(self, settings: Base) -> int:
        """Computes how many frames (video) or log-mel columns (audio) a clip of nominal length has."""

    @abstractmethod
    def images(self, view: Tensor) -> Tensor:
        """Converts normalised views to (B, T, H, W, 3) in 0..1 for video, (B, M, F) for audio."""

    @abstractmethod
    def blank(self, patches_BNP: Tensor) -> Tensor:
        """Returns the value that shows a patch as hidden."""

    @abstractmethod
    def stills(self, images: Tensor, true: Tensor) -> Tensor:
        """Converts `images` to one colour image per clip: (B, 3, H, W) in 0..1.

        Args:
            true: images that give the scale, where the modality has none.
        """


def between(uniform: Number, bounds: tuple[float, float]) -> Number:
    """Maps a draw to an interval."""
    return bounds[0] + uniform * (bounds[1] - bounds[0])


def position(uniform: float, room: int) -> int:
    """Maps a draw to 0, ..., room."""
    return int(uniform * (room + 1))


def per_clip(values_B: Tensor, like: Tensor) -> Tensor:
    """Returns one value for each clip of `like`, to be multiplied with it."""
    return values_B.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
