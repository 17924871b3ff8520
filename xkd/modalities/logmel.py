"""Log-mel spectrogram (paper section A.2): the input of the audio encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from xkd.errors import UserError

if TYPE_CHECKING:
    from xkd.settings import LogMel


class LogMelSpectrogram(nn.Module):
    """Converts waveforms (..., samples) in [-1, 1] to normalised log-mels (..., 1, n_mels, samples // hop + 1).

    Centred Hann frames with reflect padding, power 2, Slaney mel scale and norm, natural
    logarithm of (mel + floor), then (x - mean) / std. The window and the filter bank are
    computed once, and power is taken without the square root of `abs`: this runs for every view.

    Raises:
        UserError: f_max lies above half the sample rate, or f_min is not below f_max.
    """

    window: Tensor
    bank: Tensor

    def __init__(self, settings: LogMel, sample_rate: int):
        from torchaudio.functional import melscale_fbanks

        super().__init__()
        if not 0 <= settings.f_min < settings.f_max <= sample_rate / 2:
            raise UserError(
                f"logmel: f_min {settings.f_min:g} to f_max {settings.f_max:g} Hz does not fit "
                f"clips.sample_rate {sample_rate}; choose 0 <= f_min < f_max <= {sample_rate / 2:g}"
            )
        self.settings = settings
        bank = melscale_fbanks(
            n_freqs=settings.n_fft // 2 + 1,
            f_min=settings.f_min,
            f_max=settings.f_max,
            n_mels=settings.n_mels,
            sample_rate=sample_rate,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("window", torch.hann_window(settings.n_fft), persistent=False)
        self.register_buffer("bank", bank.T.contiguous(), persistent=False)

    def frames(self, samples: int) -> int:
        """Counts the columns of a waveform of `samples`."""
        return samples // self.settings.hop + 1

    def forward(self, waveform: Tensor) -> Tensor:
        return self.scaled(self.power(waveform))

    def power(self, waveform: Tensor) -> Tensor:
        """Computes energy per mel band and column, (..., 1, n_mels, frames); a gain g multiplies it by g^2."""
        # Reflection at the ends takes more than half a window: silence follows a waveform that is shorter.
        missing = self.settings.n_fft // 2 + 1 - waveform.shape[-1]
        whole = nnf.pad(waveform, (0, missing)) if missing > 0 else waveform
        flat = whole.reshape(-1, whole.shape[-1])
        spectrum = torch.stft(
            flat,
            self.settings.n_fft,
            self.settings.hop,
            window=self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        squares = torch.view_as_real(spectrum.transpose(-1, -2)).square_().flatten(0, 1)
        mel = self.bank @ (squares[..., 0] + squares[..., 1]).T
        return mel.view(len(mel), len(flat), -1).transpose(0, 1).reshape(*waveform.shape[:-1], 1, len(mel), -1)

    def scaled(self, power: Tensor) -> Tensor:
        """Takes the natural logarithm above the floor, normalised by the data set's mean and standard deviation."""
        return (power + self.settings.floor).log_().sub_(self.settings.mean).div_(self.settings.std)
