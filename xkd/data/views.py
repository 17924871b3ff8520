"""Views of a clip for training and for evaluation: which seconds the networks see.

Global views of all modalities start at the same moment; local views are cut at their own random times, independently
per modality (paper section A.2). The modality cuts, pads and augments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from xkd import registry
from xkd.errors import UserError
from xkd.modalities import MODALITIES
from xkd.modalities.audio import SampleCutter
from xkd.modalities.base import DRAWS, Augmentation, Cutter, Draw, draw_table
from xkd.modalities.video import VideoCutter
from xkd.recipe import Recipe
from xkd.settings import Clips
from xkd.settings.views import View

if TYPE_CHECKING:
    from xkd.data.clips import ClipStore

ClipViews = dict[str, list[Tensor]]  # per modality, global view first


class Cuts(NamedTuple):
    """Holds what the views of B clips are made of, see `TrainViews.cut`."""

    views: ClipViews
    draws: Tensor


class _Views:
    """Shares between training and evaluation which views there are.

    Args:
        local_views: number of local views beside the global one.
        remember: see `Cutter`.
    """

    def __init__(self, recipe: Recipe, modalities: Sequence[str], local_views: int, remember: bool = False):
        self.clips, raw = recipe.clips, recipe.training.peers.given
        self.settings = {m: _settings(recipe, m, local_views) for m in MODALITIES if m in modalities}
        self.cutters: dict[str, Cutter] = {
            m: (MODALITIES[m].raw_cutter if m in raw else MODALITIES[m].cutter)(recipe, views, remember)
            for m, views in self.settings.items()
        }
        # Moments are frames of the global video, whether or not it is read.
        self._moments = VideoCutter(recipe, [recipe.views.video_global])
        self._moment_frames = recipe.views.video_global.frames

    def _begin(self, clips: Sequence[Clip]) -> None:
        if self.clips.pack:  # else each clip is read as a whole before the next: its file is opened once
            for cutter in self.cutters.values():
                cutter.begin(clips)

    def open(self, store: ClipStore, indices: Sequence[int]) -> list[Clip]:
        """Opens clips of a store, to be cut once."""
        return [Clip(store, i, name, self.clips) for i, name in zip(indices, store.ids.take(indices), strict=True)]

    def _moment(self, seconds: float, uniform: float) -> float:
        """Maps a draw to the second at which the global views of a clip begin."""
        return self._moments.start(seconds, self._moment_frames, uniform)


class TrainViews(_Views):
    """Makes augmented views of a clip: `views(store, index, generator)`; of several clips: `cut`, then `finish`.

    Returns {"video": [global, local, ...], "audio": [global, local, ...]}: normalised float
    tensors, video (3, T, H, W) and audio (1, n_mels, frames). Only `modalities` are read and
    keyed; without `local_views` only the global view is made. A global view is the same
    whether or not other views are made beside it. A worker of a loader does both halves of the work; where
    `training.augment` is `device` (attribute `on_device`), it only cuts, and `finish` runs where the model is.

    Raises:
        UserError: a view is longer than the clips of the recipe, or a plain crop larger than a clip.
    """

    def __init__(self, recipe: Recipe, modalities: Sequence[str] = tuple(MODALITIES), local_views: bool = True):
        # What fits in memory decoded fits as mel power (16 KB a second), and every epoch asks for it again.
        super().__init__(recipe, modalities, recipe.views.local_views if local_views else 0, recipe.clips.pack)
        self.on_device = recipe.training.augment == "device"
        every = [view for modality in MODALITIES for view in recipe.views.of(modality).values()]
        self._plugged = max(sum(one.draws for one, _ in _plugged(view)) for view in every)

    def __call__(self, store: ClipStore, index: int, generator: torch.Generator) -> ClipViews:
        clip = Clip(store, index, store.ids[index], self.clips)
        return _alone(self.finish(*self.cut([clip], [generator])))

    def cut(self, clips: Sequence[Clip], generators: Iterable[torch.Generator]) -> Cuts:
        """Cuts what `finish` makes the views of: small, and without any operation that a GPU does better.

        Returns uint8 frames (B, T, 3, size, size) or mel power (B, 1, n_mels, frames) per view, and the draws
        (B, views, modalities, columns), see `draw_table`.
        """
        count = max(map(len, self.settings.values()))
        draws = torch.stack([draw_table(count, generator, self._plugged) for generator in generators])
        self._begin(clips)
        cuts = map(self._cut, clips, draws[..., :DRAWS].tolist())
        # Cuts that another process finishes are stacked in shared memory.
        return Cuts(_stacked(cuts, default_collate if self.on_device else torch.stack), draws)

    def _cut(self, clip: Clip, numbers: list[list[list[float]]]) -> ClipViews:
        draws = [[Draw.split(columns) for columns in row] for row in numbers]
        together = self._moment(clip.seconds, draws[0][0].time)
        views: ClipViews = {}
        for place, modality in enumerate(MODALITIES):
            if modality in self.cutters:
                cutter, views[modality] = self.cutters[modality], []
                for i in range(len(self.settings[modality])):
                    draw = draws[i][place]
                    start = cutter.local_start(clip.seconds, i, draw) if i else together
                    views[modality].append(cutter.cut(clip, i, start, draw))
        clip.close()
        return views

    def finish(self, cuts: ClipViews, draws: Tensor) -> ClipViews:
        """Makes views of clips (B, ...) from their stacked cuts and the draws (B, views, modalities, columns) of `cut`.

        All are on one device, which is not waited for.
        """
        columns = draws[..., :DRAWS].double()  # decisions are those of Python numbers
        views: ClipViews = {}
        for modality, parts in cuts.items():
            place, finish = list(MODALITIES).index(modality), self.cutters[modality].finish
            views[modality] = [
                finish(cut, i, Draw.split(columns[:, i, place].unbind(1))) for i, cut in enumerate(parts)
            ]
        return self._with_plugins(views, draws)

    def _with_plugins(self, views: ClipViews, draws: Tensor) -> ClipViews:
        """Applies the augmentations of plugins to views of B clips."""
        for place, modality in enumerate(MODALITIES):
            if isinstance(self.cutters.get(modality), SampleCutter):  # these augmentations change log-mels
                continue
            for i, view in enumerate(views.get(modality, [])):
                views[modality][i] = _augmented(view, self.settings[modality][i], draws[:, i, place, DRAWS:])
        return views


class EvalViews(_Views):
    """Makes deterministic views of a clip, of the global size: `views(store, index)`; of several clips: `batch`.

    By default one: middle of the clip, same seconds for all modalities; middle of the frame, enlarged
    only if it is smaller than the view; no augmentation. Otherwise `clips` times, evenly spaced from the first moment
    to the last, and at each `crops` crops of the frames, evenly spaced along their longer side.
    Returns {"video": [clips x crops views, moment by moment], "audio": [clips views]}, shapes as in `TrainViews`.
    """

    def __init__(
        self, recipe: Recipe, modalities: Sequence[str] = tuple(MODALITIES), clips: int = 1, crops: int = 1
    ) -> None:
        super().__init__(recipe, modalities, local_views=0)
        self.moments, self.places = _evenly(clips), _evenly(crops)

    def __call__(self, store: ClipStore, index: int) -> ClipViews:
        return _alone(self.batch([Clip(store, index, store.ids[index], self.clips)]))

    def batch(self, clips: Sequence[Clip]) -> ClipViews:
        """Makes the same views of B clips, each (B, ...)."""
        self._begin(clips)
        cuts = _stacked(map(self._cut, clips), torch.stack)
        return {m: [self.cutters[m].finish(cut, 0, None) for cut in of] for m, of in cuts.items()}

    def _cut(self, clip: Clip) -> ClipViews:
        starts = [self._moment(clip.seconds, moment) for moment in self.moments]
        views = {
            modality: [view for start in starts for view in cutter.plain(clip, start, self.places)]
            for modality, cutter in self.cutters.items()
        }
        clip.close()
        return views


class Clip:
    """One clip of a store, as `ClipSource`: one of nominal length is read once, a longer one part by part."""

    def __init__(self, store: ClipStore, index: int, name: str, clips: Clips):
        self.store, self.index, self.id = store, index, name
        self.seconds = store.seconds(index)
        self.nominal = self.seconds < clips.seconds + 2 / clips.fps
        self._held: dict[str, tuple[int, Tensor]] = {}

    def close(self) -> None:
        """Frees what was read."""
        self._held.clear()

    def whole(self, modality: str) -> Tensor:
        if modality not in self._held:
            self._held[modality] = 0, getattr(self.store, modality)(self.index)
        return self._held[modality][1]

    def part(self, modality: str, rate: float, first: int, count: int) -> Tensor:
        """Reads only what the first, longest part does not hold: a local view often lies within the global one."""

        def read(first: int, last: int) -> Tensor:
            values: Tensor = getattr(self.store, modality)(self.index, first / rate, (last - first) / rate)
            return values[: last - first]

        if modality not in self._held:
            self._held[modality] = first, read(first, first + count)
            return self._held[modality][1]
        start, held = self._held[modality]
        last, end = first + count, start + len(held)
        if last <= start or first >= end:
            return read(first, last)
        parts = [held[max(first - start, 0) : last - start]]
        if first < start:
            parts.insert(0, read(first, start))
        if last > end:
            parts.append(read(end, last))
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _settings(recipe: Recipe, modality: str, local_views: int) -> list[View]:
    """Lists the settings of each view of a modality, the global one first.

    Raises:
        UserError: a view is longer than the clips.
    """
    views, there = recipe.views.of(modality), MODALITIES[modality].frames(recipe)
    chosen = {name: view for name, view in views.items() if local_views or view is views[f"{modality}_global"]}
    for name, view in chosen.items():
        if view.frames > there:
            raise UserError(
                f"views.{name}.frames: {view.frames}, but a clip of clips.seconds {recipe.clips.seconds:g} has "
                f"{there}; lower it, or raise clips.seconds and prepare again"
            )
    first, *local = chosen.values()
    return [first, *local * local_views]


def _evenly(count: int) -> list[float]:
    """Spaces places from 0 to 1; a single one is the middle."""
    return [0.5] if count == 1 else [number / (count - 1) for number in range(count)]


def _stacked(clips: Iterable[ClipViews], stack: Callable[[list[Tensor]], Tensor]) -> ClipViews:
    """Stacks each view of several clips."""
    every = list(clips)
    return {m: [stack(list(views)) for views in zip(*(of[m] for of in every), strict=True)] for m in every[0]}


def _alone(views: ClipViews) -> ClipViews:
    """Takes the views of a single clip out of a batch."""
    return {modality: [view[0] for view in of] for modality, of in views.items()}


def _plugged(view: View) -> list[tuple[type[Augmentation], object]]:
    """Lists the augmentations of plugins that a view's settings name, with their settings."""
    return [(registry.augmentations[name], settings) for name, settings in view.plugged.items()]


def _augmented(view: Tensor, settings: View, draws: Tensor) -> Tensor:
    """Applies the augmentations of plugins to a view (B, ...) by their draws (B, columns)."""
    for augmentation, chosen in _plugged(settings):
        own, draws = draws[:, : augmentation.draws], draws[:, augmentation.draws :]
        view = augmentation.apply(view, own, chosen)
    return view
