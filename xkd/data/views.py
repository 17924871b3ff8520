"""Which seconds and pixels of a clip a network sees: views for training and for evaluation.

Global views of video and sound start at the same moment; local views are cut at their own
random times, independently per modality (paper section A.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from xkd.data import augment
from xkd.data.logmel import LogMelSpectrogram
from xkd.data.padding import padded
from xkd.errors import UserError
from xkd.recipe import Recipe
from xkd.settings import MODALITIES, AudioView, Clips, VideoView

if TYPE_CHECKING:
    from xkd.data.clips import ClipStore


def clip_generator(seed: int, epoch: int, clip_id: str) -> torch.Generator:
    """A generator that depends on its arguments alone: not on workers, batches or order."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{clip_id}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


class Cuts(NamedTuple):
    """What a clip's views are made of, see `TrainViews.cut`."""

    video: list[Tensor]
    audio: list[Tensor]
    draws: Tensor


class _Views:
    """What training and evaluation share: which views there are, and reading their seconds of a clip.

    `logmel` is there where `audio` is.
    """

    def __init__(self, recipe: Recipe, modalities: Sequence[str], local_views: int):
        views = recipe.views
        self.clips = recipe.clips
        self.global_frames = views.video_global.frames
        self.video = [views.video_global, *[views.video_local] * local_views] if "video" in modalities else []
        self.audio = [views.audio_global, *[views.audio_local] * local_views] if "audio" in modalities else []
        _check(recipe, "video", self.video)
        _check(recipe, "audio", self.audio)
        if self.audio:
            self.logmel = LogMelSpectrogram(recipe.logmel, recipe.clips.sample_rate)
        self.remember = False
        self._powers: dict[str, Tensor] = {}

    def _frame_start(self, seconds: float, frames: int, draw: float) -> float:
        """Start in seconds of a cut of `frames` pictures, uniform over the frame grid."""
        room = max(round(seconds * self.clips.fps) - frames, 0)
        return min(int(draw * (room + 1)), room) / self.clips.fps

    def _samples(self, view: AudioView) -> int:
        """Samples that give the columns of a view; never more than a clip of nominal length holds."""
        return min(view.frames * self.logmel.settings.hop, round(self.clips.seconds * self.clips.sample_rate))

    def _frames_from(self, clip: _Clip, start: float, view: VideoView) -> Tensor:
        return self._padded(clip.video(start, view.frames), view.frames, "video")

    def _padded(self, cut: Tensor, length: int, modality: str) -> Tensor:
        return torch.from_numpy(padded(cut.numpy(), length, modality, self.clips.pad))

    def _power_from(self, clip: _Clip, start: float, view: AudioView) -> Tensor:
        """Mel power (1, n_mels, frames) from `start` seconds on.

        A clip of nominal length is transformed once and each view is some of its columns; of a longer
        clip only the cut is read.
        """
        if not clip.short:
            samples = self._samples(view)
            return self.logmel.power(self._padded(clip.audio(start, samples), samples, "audio"))[..., : view.frames]
        power = self._whole_power(clip)
        first = min(round(start * self.clips.sample_rate / self.logmel.settings.hop), power.shape[-1] - view.frames)
        return power[..., first : first + view.frames]

    def _whole_power(self, clip: _Clip) -> Tensor:
        if clip.id not in self._powers:
            if not self.remember:
                self._powers.clear()
            nominal = round(self.clips.seconds * self.clips.sample_rate)
            self._powers[clip.id] = self.logmel.power(self._padded(clip.audio(), nominal, "audio"))
        return self._powers[clip.id]


class TrainViews(_Views):
    """Augmented views of a clip: `views(store, index, generator)`.

    Returns {"video": [global, local, ...], "audio": [global, local, ...]}: normalised float
    tensors, video (3, T, H, W) and audio (1, n_mels, frames). Only `modalities` are read and
    keyed; without `local_views` only the global view is made. A global view is the same
    whether or not other views are made beside it. Where `training.augment` is `device` (attribute `on_device`), a loader
    takes the two halves of the work apart: `cut` in a worker, `finish` for a whole batch where the model is.

    Raises:
        UserError: a view is longer than the clips of the recipe, or a plain crop larger than a clip.
    """

    def __init__(self, recipe: Recipe, modalities: Sequence[str] = MODALITIES, local_views: bool = True):
        super().__init__(recipe, modalities, recipe.views.local_views if local_views else 0)
        # What fits in memory as samples fits as power (16 KB a second), and every epoch asks for it again.
        self.remember = recipe.clips.pack
        self.on_device = recipe.training.augment == "device"

    def __call__(self, store: ClipStore, index: int, generator: torch.Generator) -> dict[str, list[Tensor]]:
        cuts = self.cut(store, index, generator)
        views = self.finish([part[None] for part in cuts.video], [part[None] for part in cuts.audio], cuts.draws[None])
        return {modality: [view[0] for view in views[modality]] for modality in views}

    def cut(self, store: ClipStore, index: int, generator: torch.Generator) -> Cuts:
        """What `finish` makes the views of: small, and without any operation that a GPU does better.

        Returns uint8 pictures (T, 3, size, size) per view, mel power (1, n_mels, frames) per view, and the draws
        (views, 2, columns), see `augment.draw_table`.
        """
        table = augment.draw_table(max(len(self.video), len(self.audio)), generator)
        draws = augment.named(table)
        clip = _Clip(store, index, self.clips)
        together = self._frame_start(clip.seconds, self.global_frames, draws[0]["video"].time)
        return Cuts(
            [self._pictures(clip, i, draws[i]["video"], together) for i in range(len(self.video))],
            [self._power(clip, i, draws[i]["audio"], together) for i in range(len(self.audio))],
            table,
        )

    def finish(self, video: list[Tensor], audio: list[Tensor], draws: Tensor) -> dict[str, list[Tensor]]:
        """Views of clips (B, ...) from their stacked cuts, on the device where those are; `draws` stay on the CPU."""
        named = [augment.named(table) for table in draws]
        views = {}
        if video:
            views["video"] = [
                augment.augment_video(cut, self.video[i], [clip[i]["video"] for clip in named])
                for i, cut in enumerate(video)
            ]
        if audio:
            views["audio"] = [
                augment.augment_audio(cut, self.audio[i], [clip[i]["audio"] for clip in named], self.logmel)
                for i, cut in enumerate(audio)
            ]
        return views

    def _pictures(self, clip: _Clip, number: int, draw: augment.Draw, together: float) -> Tensor:
        view = self.video[number]
        start = self._frame_start(clip.seconds, view.frames, draw.time) if number else together
        frames = self._frames_from(clip, start, view)
        if view.crop_area == (0, 0) and min(frames.shape[-2:]) < view.size:
            raise UserError(
                f"clip {clip.id}: {frames.shape[-1]} x {frames.shape[-2]} pixels is smaller than a view of "
                f"{view.size}; raise clips.size and prepare again, or lower the size of the video view"
            )
        return augment.crop(frames, view, draw)

    def _power(self, clip: _Clip, number: int, draw: augment.Draw, together: float) -> Tensor:
        view = self.audio[number]
        room = max(clip.seconds - self._samples(view) / self.clips.sample_rate, 0.0)
        return self._power_from(clip, draw.time * room if number else together, view)


class EvalViews(_Views):
    """Deterministic views of a clip, of the global size: `views(store, index)`.

    By default one: middle of the clip, same seconds for both modalities; middle of the picture, enlarged
    only if it is smaller than the view; no augmentation. Otherwise `clips` times, evenly spaced from the first moment to
    the last, and at each `crops` crops of the picture, evenly spaced along its longer side.
    Returns {"video": [clips x crops views, moment by moment], "audio": [clips views]}, shapes as in `TrainViews`.
    """

    def __init__(self, recipe: Recipe, modalities: Sequence[str] = MODALITIES, clips: int = 1, crops: int = 1):
        super().__init__(recipe, modalities, local_views=0)
        self.moments, self.places = _evenly(clips), _evenly(crops)

    def __call__(self, store: ClipStore, index: int) -> dict[str, list[Tensor]]:
        clip = _Clip(store, index, self.clips)
        starts = [self._frame_start(clip.seconds, self.global_frames, draw=moment) for moment in self.moments]
        views = {}
        if self.video:
            views["video"] = [view for start in starts for view in self._crops(clip, start)]
        if self.audio:
            views["audio"] = [self.logmel.scaled(self._power_from(clip, start, self.audio[0])) for start in starts]
        return views

    def _crops(self, clip: _Clip, start: float) -> Iterator[Tensor]:
        frames = self._frames_from(clip, start, self.video[0])
        for place in self.places:
            picture = _crop(frames, self.video[0].size, place)
            yield augment.normalise(picture.to(torch.float32).div_(255))


class _Clip:
    """One clip of a store. A clip of nominal length is read once, a longer one cut by cut."""

    def __init__(self, store: ClipStore, index: int, clips: Clips):
        self.store, self.index, self.clips = store, index, clips
        self.seconds = store.seconds(index)
        self.short = self.seconds < clips.seconds + 2 / clips.fps
        self._video: Tensor | None = None
        self._held: dict[str, tuple[int, Tensor]] = {}

    @property
    def id(self) -> str:
        return self.store.ids[self.index]

    def video(self, start: float, frames: int) -> Tensor:
        """At most `frames` pictures (T, 3, H, W), uint8, from `start` seconds on."""
        if not self.short:
            return self._cut("video", self.clips.fps, round(start * self.clips.fps), frames)
        if self._video is None:
            self._video = self.store.video(self.index)
        first = min(round(start * self.clips.fps), max(len(self._video) - frames, 0))
        return self._video[first : first + frames]

    def audio(self, start: float = 0.0, samples: int | None = None) -> Tensor:
        """All samples, or at most `samples` from `start` seconds on."""
        if samples is None:
            return self.store.audio(self.index)
        return self._cut("audio", self.clips.sample_rate, round(start * self.clips.sample_rate), samples)

    def _cut(self, modality: str, rate: float, first: int, count: int) -> Tensor:
        """Reads only what the first, longest cut does not hold: a local view often lies within the global one."""
        stream = self.store.video if modality == "video" else self.store.audio

        def read(first: int, last: int) -> Tensor:
            return stream(self.index, first / rate, (last - first) / rate)[: last - first]

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


def _evenly(count: int) -> list[float]:
    """Places from 0 to 1; a single one is the middle."""
    return [0.5] if count == 1 else [number / (count - 1) for number in range(count)]


def _crop(frames: Tensor, size: int, place: float) -> Tensor:
    """A square at a place along the longer side, in the middle of the shorter one; small pictures are enlarged."""
    if min(frames.shape[-2:]) < size:
        frames = augment.resize_shorter_side(frames, size)
    height, width = frames.shape[-2:]
    top = round((height - size) * (place if height > width else 0.5))
    left = round((width - size) * (place if width >= height else 0.5))
    return frames[..., top : top + size, left : left + size]


def _check(recipe: Recipe, modality: str, views: Sequence[VideoView | AudioView]) -> None:
    """Holds the settings of each view of a modality, the global one first, against the length of the clips."""
    clips, hop = recipe.clips, recipe.logmel.hop
    columns = round(clips.seconds * clips.sample_rate) // hop + 1
    there = round(clips.seconds * clips.fps) if modality == "video" else columns
    for number, view in enumerate(views):
        name = f"{modality}_local" if number else f"{modality}_global"
        if view.frames > there:
            raise UserError(
                f"views.{name}.frames: {view.frames}, but a clip of clips.seconds {clips.seconds:g} has {there}; "
                "lower it, or raise clips.seconds and prepare again"
            )
        if modality == "audio" and view.frames * hop <= recipe.logmel.n_fft // 2:
            raise UserError(
                f"logmel.n_fft: {recipe.logmel.n_fft} is too long for views.{name} of {view.frames * hop} samples; "
                "lower it, or raise the frames of the view"
            )
