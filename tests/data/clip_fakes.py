"""Clips in memory that say where and when each value came from, behind the interface of a clip store."""

import torch

from xkd.recipe import Recipe
from xkd.settings import AudioView, Clips, LogMel, Model, ObjectiveSettings, Training, VideoView, Views

FPS, RATE = 8, 16000
ENVELOPE = 0.8  # the tone of a coded clip is this much louder in each video frame than in the next


def recipe(video_global=None, video_local=None, audio_global=None, audio_local=None, **groups) -> Recipe:
    """A recipe for small clips of one second; views without augmentation unless given."""
    plain = {"crop_area": (0, 0), "flip": 0, "jitter": (0, 0, 0, 0)}
    views = Views(
        video_global=VideoView(**{"frames": 8, "size": 32, **plain, **(video_global or {})}),
        video_local=VideoView(**{"frames": 2, "size": 24, **plain, **(video_local or {})}),
        audio_global=AudioView(**{"frames": 96, "volume": 0, **(audio_global or {})}),
        audio_local=AudioView(**{"frames": 24, "volume": 0, **(audio_local or {})}),
    )
    defaults = {
        "clips": Clips(seconds=1, fps=FPS, size=40, sample_rate=RATE),
        "logmel": LogMel(n_fft=512, hop=160, n_mels=40, f_min=40, floor=1e-12, mean=0, std=1),
        "views": views,
        "model": Model(width=16, heads=2, video_patch=(2, 8, 8), audio_patch=(8, 8), decoder={"width": 12}),
        "objective": ObjectiveSettings(),
        "training": Training(batch_size=4),
    }
    return Recipe(ablation="test", dataset="test", **{**defaults, **groups})


class Texts(list[str]):
    """A column of text, as `xkd.data.columns.Column`."""

    def take(self, numbers) -> list[str]:
        return [self[number] for number in numbers]


class FakeClips:
    """Clips in which red counts columns, green rows and blue frames, and a tone fades frame by frame."""

    def __init__(self, count: int = 8, seconds: float = 1.0, rows: int = 40, columns: int = 40):
        self.ids = Texts(f"clip{number}" for number in range(count))
        self.labels = Texts(str(number % 3) for number in range(count))
        frames, samples = round(seconds * FPS), round(seconds * RATE)
        video = torch.zeros(frames, 3, rows, columns, dtype=torch.uint8)
        video[:, 0] = torch.arange(columns)
        video[:, 1] = torch.arange(rows)[:, None]
        video[:, 2] = torch.arange(frames)[:, None, None]
        time = torch.arange(samples, dtype=torch.float64) / RATE
        self.tone = 0.9 * torch.sin(2 * torch.pi * 1000 * time)
        audio = (self.tone * ENVELOPE ** (time * FPS).floor()).float()
        self._video, self._audio, self._seconds = video, audio, seconds

    def __len__(self) -> int:
        return len(self.ids)

    def seconds(self, index: int) -> float:
        return self._seconds

    def video(self, index: int, start_seconds: float = 0.0, seconds: float | None = None) -> torch.Tensor:
        return self._cut(self._video, FPS, start_seconds, seconds)

    def audio(self, index: int, start_seconds: float = 0.0, seconds: float | None = None) -> torch.Tensor:
        return self._cut(self._audio, RATE, start_seconds, seconds)

    @staticmethod
    def _cut(track: torch.Tensor, rate: int, start: float, seconds: float | None) -> torch.Tensor:
        first = round(start * rate)
        return track[first:] if seconds is None else track[first : first + round(seconds * rate)]
