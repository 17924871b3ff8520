"""What an exported graph takes: frames or samples of a clip, as an encoder takes them, and their conversion to a view.

Shapes: B batch, T frames, S samples, H rows, W columns, M mel bands, F log-mel columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from xkd.encoders.exchange.waveform import ConvolvedLogMel
from xkd.encoders.pretrained import PretrainedEncoder
from xkd.modalities.logmel import LogMelSpectrogram


class GraphInput(nn.Module, ABC):
    """Converts clips to the input of a network, as operations of any length that a graph can hold.

    Attributes:
        name: of the input.
        patch: frames or columns of one patch.
        step: frames or samples of one patch.
        shortest: a graph takes no fewer frames or samples; these are two patches.
        usual: frames or samples of one view of training.
        rate: frames or samples per second.
    """

    name: str

    def __init__(self, model: PretrainedEncoder, step: int) -> None:
        super().__init__()
        config = model.config
        self.patch, self.step, self.shortest = config.patch[model.modality.time_axis], step, 2 * step
        self.usual, self.rate = config.input.length, config.input.rate

    @property
    @abstractmethod
    def words(self) -> str:
        """Says what the input is: type, shape, unit, and how others prepare it."""

    @abstractmethod
    def draw(self, batch: int, length: int) -> Tensor:
        """Draws random clips, (B, T, H, W, 3) or (B, S)."""

    def whole_patches(self, clips: Tensor, axis: int) -> Tensor:
        """Leaves out the frames or columns that do not fill a last patch."""
        # A slice of everything is a case of its own to the tracer, which it would then ask every input to be, or not.
        return clips.index_select(axis, torch.arange(clips.shape[axis] // self.patch * self.patch))


class Frames(GraphInput):
    """Crops and normalises uint8 frames (B, T, short side, short side, 3): (B, 3, T', size, size)."""

    name = "frames"
    mean: Tensor
    std: Tensor

    def __init__(self, model: PretrainedEncoder) -> None:
        super().__init__(model, step=model.config.patch[0])
        self.settings: Any = model.config.input
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(self.settings, name)).view(3, 1, 1), persistent=False)

    @property
    def words(self) -> str:
        fed, side = self.settings, self.settings.short_side
        crop = f" The graph takes the middle {fed.size} x {fed.size} pixels." if fed.size < fed.short_side else ""
        return (
            f"uint8 (batch, frames, {side}, {side}, 3): RGB frames at {fed.fps:g} per second, 0 to 255. Resize the "
            f"shorter side to {side} pixels (bilinear, antialiased) and take the middle square; other sizes are not "
            f"taken.{crop} Trained on {self.usual} frames; at least {self.shortest}, and those that do not fill a last "
            f"patch of {self.patch} are left out."
        )

    def draw(self, batch: int, length: int) -> Tensor:
        return torch.randint(
            0, 256, (batch, length, self.settings.short_side, self.settings.short_side, 3), dtype=torch.uint8
        )

    def forward(self, frames_BTHW3: Tensor) -> Tensor:
        size = self.settings.size
        first = round((self.settings.short_side - size) / 2)
        frames = self.whole_patches(frames_BTHW3[:, :, first : first + size, first : first + size], axis=1)
        return ((frames.permute(0, 1, 4, 2, 3).float() / 255 - self.mean) / self.std).transpose(1, 2)


class Samples(GraphInput):
    """Takes the log-mel of mono samples (B, S) in [-1, 1]: (B, 1, bands, columns)."""

    name = "samples"

    def __init__(self, model: PretrainedEncoder) -> None:
        fed: Any = model.config.input
        super().__init__(model, step=model.config.patch[1] * fed.logmel.hop)
        self.shortest = max(self.shortest, fed.logmel.n_fft // 2 + 1)
        self.logmel = ConvolvedLogMel(LogMelSpectrogram(fed.logmel, fed.sample_rate))

    @property
    def words(self) -> str:
        return (
            f"float32 (batch, samples): mono in [-1, 1] at {self.rate:g} per second; resample others first. Trained on "
            f"{self.usual} samples; at least {self.shortest}, and what does not fill a last patch of {self.patch} "
            "log-mel columns is left out."
        )

    def draw(self, batch: int, length: int) -> Tensor:
        return torch.rand(batch, length) - 0.5

    def forward(self, samples_BS: Tensor) -> Tensor:
        return self.whole_patches(self.logmel(samples_BS), axis=3)


def input_of(model: PretrainedEncoder) -> GraphInput:
    """Returns the input of an encoder's graph."""
    return Samples(model) if model.modality.name == "audio" else Frames(model)
