"""The log-mel spectrogram as a convolution: graphs hold it, and runtimes without a Fourier transform compute it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xkd.modalities.logmel import LogMelSpectrogram


class ConvolvedLogMel(nn.Module):
    """Converts samples (B, S) to what a `LogMelSpectrogram` makes of them, (B, 1, n_mels, S // hop + 1).

    Each frequency of the windowed Fourier transform is a filter for the cosine and one for the sine.
    """

    filters: Tensor
    bank: Tensor

    def __init__(self, logmel: LogMelSpectrogram) -> None:
        super().__init__()
        self.settings = logmel.settings
        size = self.settings.n_fft
        turns = torch.outer(torch.arange(size // 2 + 1), torch.arange(size)) % size
        angles = 2 * math.pi / size * turns.double()
        filters = torch.cat([angles.cos(), angles.sin()]) * logmel.window
        self.register_buffer("filters", filters.float()[:, None], persistent=False)
        self.register_buffer("bank", logmel.bank.clone(), persistent=False)

    def forward(self, samples_BS: Tensor) -> Tensor:
        fed, half = self.settings, self.settings.n_fft // 2
        padded = F.pad(samples_BS[:, None], (half, half), mode="reflect")
        real, imaginary = F.conv1d(padded, self.filters, stride=fed.hop).chunk(2, 1)
        power = self.bank @ (real.square() + imaginary.square())
        return (((power + fed.floor).log() - fed.mean) / fed.std)[:, None]
