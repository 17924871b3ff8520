"""Which seconds and pixels of a clip a network sees: views for training and for evaluation.

Global views of video and sound start at the same moment; local views are cut at their own
random times, independently per modality (paper section A.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from xkd.data import augment
from xkd.data.logmel import LogMelSpectrogram
from xkd.errors import UserError
from xkd.params import AudioView, Recipe, VideoView

MODALITIES = ("video", "audio")


def clip_generator(seed: int, epoch: int, clip_id: str) -> torch.Generator:
    """A generator that depends on its arguments alone: not on workers, batches or order."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{clip_id}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


class _Views:
    """What training and evaluation share: reading the global and local cuts of a clip."""

    def __init__(self, recipe: Recipe, modalities: Sequence[str], local_views: int):
        views = recipe.views
        self.clips = recipe.clips
        self.global_frames = views.video_global.frames
        self.video = [views.video_global] + [views.video_local] * local_views if "video" in modalities else []
        self.audio = [views.audio_global] + [views.audio_local] * local_views if "audio" in modalities else []
        self.logmel = LogMelSpectrogram(recipe.logmel, recipe.clips.sample_rate) if self.audio else None
        _check_lengths(recipe)

    def _global_start(self, seconds: float, draw: float) -> float:
        return self._frame_start(seconds, self.global_frames, draw)

    def _frame_start(self, seconds: float, frames: int, draw: float) -> float:
        """Start in seconds of a cut of `frames`, uniform over the frame grid."""
        room = max(round(seconds * self.clips.fps) - frames, 0)
        return int(draw * (room + 1)) / self.clips.fps

    def _samples(self, view: AudioView) -> int:
        """Samples that give the columns of a view; never more than a clip of nominal length holds."""
        return min(view.frames * self.logmel.settings.hop, round(self.clips.seconds * self.clips.sample_rate))

    def _read_video(self, clip: _Clip, start: float, view: VideoView) -> Tensor:
        frames = clip.video(start, view.frames)
        missing = view.frames - len(frames)  # a track that ends early holds its last picture
        return torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)]) if missing else frames

    def _read_audio(self, clip: _Clip, start: float, view: AudioView) -> Tensor:
        samples = self._samples(view)
        waveform = clip.audio(start, samples)
        missing = samples - len(waveform)  # a track that ends early goes silent
        return nnf.pad(waveform, (0, missing)) if missing else waveform


class TrainViews(_Views):
    """Augmented views of a clip: `views(store, index, generator)`.

    Returns {"video": [global, local, ...], "audio": [global, local, ...]}: normalised float
    tensors, video (3, T, H, W) and audio (1, n_mels, frames). Only `modalities` are read and
    keyed; without `local_views` only the global view is made. A global view is the same
    whether or not other views are made beside it.

    Raises:
        UserError: a view is longer than the clips of the recipe.
    """

    def __init__(self, recipe: Recipe, modalities: Sequence[str] = MODALITIES, local_views: bool = True):
        super().__init__(recipe, modalities, recipe.views.local_views if local_views else 0)

    def __call__(self, store, index: int, generator: torch.Generator) -> dict[str, list[Tensor]]:
        draws = augment.draw_table(max(len(self.video), len(self.audio)), generator)
        clip = _Clip(store, index, self.clips)
        views = {}
        if self.video:
            views["video"] = [self._video_view(clip, i, view, draws[i]["video"]) for i, view in enumerate(self.video)]
        if self.audio:
            shared = draws[0]["video"].time
            first = draws[0]["audio"]._replace(time=shared)
            rows = [first] + [row["audio"] for row in draws[1:]]
            views["audio"] = [self._audio_view(clip, i, view, rows[i]) for i, view in enumerate(self.audio)]
        return views

    def _video_view(self, clip: _Clip, number: int, view: VideoView, draw: augment.Draw) -> Tensor:
        start = self._frame_start(clip.seconds, view.frames, draw.time)
        frames = self._read_video(clip, start, view)
        if view.crop_area == (0, 0) and min(frames.shape[-2:]) < view.size:
            raise UserError(
                f"clip {clip.id}: {frames.shape[-1]} x {frames.shape[-2]} pixels is smaller than a view of "
                f"{view.size}; raise clips.size and prepare again, or lower the size of the video view"
            )
        return augment.augment_video(frames, view, draw)

    def _audio_view(self, clip: _Clip, number: int, view: AudioView, draw: augment.Draw) -> Tensor:
        if number == 0:
            start = self._global_start(clip.seconds, draw.time)
        else:
            start = draw.time * max(clip.seconds - self._samples(view) / self.clips.sample_rate, 0.0)
        waveform = self._read_audio(clip, start, view) * augment.volume_gain(view, draw)
        logmel = self.logmel(waveform)[..., : view.frames]
        return augment.resized_crop_logmel(logmel, draw) if view.resized_crop else logmel


class EvalViews(_Views):
    """The deterministic view of a clip, of the global size: `views(store, index)`.

    Middle of the clip, same seconds for both modalities; middle of the picture, enlarged
    only if it is smaller than the view; no augmentation.
    Returns {"video": [view], "audio": [view]}, shapes as in `TrainViews`.
    """

    def __init__(self, recipe: Recipe, modalities: Sequence[str] = MODALITIES):
        super().__init__(recipe, modalities, local_views=0)

    def __call__(self, store, index: int) -> dict[str, list[Tensor]]:
        clip = _Clip(store, index, self.clips)
        start = self._global_start(clip.seconds, draw=0.5)
        views = {}
        if self.video:
            frames = self._read_video(clip, start, self.video[0])
            views["video"] = [augment.normalise(_centre_crop(frames, self.video[0].size).to(torch.float32).div_(255))]
        if self.audio:
            waveform = self._read_audio(clip, start, self.audio[0])
            views["audio"] = [self.logmel(waveform)[..., : self.audio[0].frames]]
        return views


class _Clip:
    """One clip of a store. A clip of nominal length is read once, a longer one cut by cut."""

    def __init__(self, store, index: int, clips):
        self.store, self.index, self.clips = store, index, clips
        self.seconds = store.seconds(index)
        self.short = self.seconds < clips.seconds + 2 / clips.fps
        self._video = self._audio = None

    @property
    def id(self) -> str:
        return self.store.ids[self.index]

    def video(self, start: float, frames: int) -> Tensor:
        """At most `frames` pictures (T, 3, H, W), uint8, from `start` seconds on."""
        if not self.short:
            return self.store.video(self.index, start, frames / self.clips.fps)[:frames]
        if self._video is None:
            self._video = self.store.video(self.index)
        first = min(round(start * self.clips.fps), max(len(self._video) - frames, 0))
        return self._video[first : first + frames]

    def audio(self, start: float, samples: int) -> Tensor:
        """At most `samples` samples from `start` seconds on."""
        if not self.short:
            return self.store.audio(self.index, start, samples / self.clips.sample_rate)[:samples]
        if self._audio is None:
            self._audio = self.store.audio(self.index)
        first = min(round(start * self.clips.sample_rate), max(len(self._audio) - 1, 0))
        return self._audio[first : first + samples]


def _centre_crop(frames: Tensor, size: int) -> Tensor:
    if min(frames.shape[-2:]) < size:
        frames = F.resize_image(frames, [size], antialias=True)
    return F.center_crop_image(frames, [size, size])


def _check_lengths(recipe: Recipe) -> None:
    clips, views, logmel = recipe.clips, recipe.views, recipe.logmel
    frames, samples = round(clips.seconds * clips.fps), round(clips.seconds * clips.sample_rate)
    columns = samples // logmel.hop + 1
    for name in ("video_global", "video_local", "audio_global", "audio_local"):
        wanted, there = getattr(views, name).frames, frames if name.startswith("video") else columns
        if wanted > there:
            raise UserError(
                f"views.{name}.frames: {wanted} frames, but a clip of clips.seconds {clips.seconds:g} has {there}; "
                "lower it or prepare longer clips"
            )
    shortest = min(views.audio_global.frames, views.audio_local.frames) * logmel.hop
    if shortest <= logmel.n_fft // 2:
        raise UserError(
            f"logmel.n_fft: {logmel.n_fft} samples are too many for a view of {shortest} samples; lower it below "
            f"{2 * shortest}"
        )
