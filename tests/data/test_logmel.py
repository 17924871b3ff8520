from pathlib import Path

import numpy as np
import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from xkd.errors import UserError
from xkd.modalities.logmel import LogMelSpectrogram
from xkd.settings import LogMel

REFERENCE = Path(__file__).parents[1] / "reference" / "log-mel.npz"


@pytest.mark.parametrize("view", ["global", "local"])
def test_matches_reference_numbers(view):
    with np.load(REFERENCE) as reference:
        waveform = torch.from_numpy(reference[f"in/{view}"].astype(np.float32))
        expected = torch.from_numpy(reference[f"out/{view}"])
    logmel = LogMelSpectrogram(LogMel(), sample_rate=16000)(waveform)
    assert logmel.shape == (1, *expected.shape)
    torch.testing.assert_close(logmel[0], expected, atol=1e-4, rtol=0)


def test_matches_torchaudio_for_other_settings_and_batches():
    settings = LogMel(n_fft=400, hop=160, n_mels=40, f_min=40, f_max=7600, floor=1e-4, mean=-3, std=3)
    waveform = torch.randn(2, 3, 8000, generator=torch.Generator().manual_seed(0))
    oracle = MelSpectrogram(
        16000, 400, hop_length=160, n_mels=40, f_min=40, f_max=7600, norm="slaney", mel_scale="slaney"
    )
    expected = ((oracle(waveform) + 1e-4).log() + 3) / 3
    logmel = LogMelSpectrogram(settings, 16000)
    assert logmel(waveform).shape == (2, 3, 1, 40, logmel.frames(8000))
    torch.testing.assert_close(logmel(waveform)[:, :, 0], expected, atol=1e-5, rtol=1e-5)


def test_silence_is_the_logarithm_of_the_floor():
    settings = LogMel(floor=1e-3, mean=1, std=2)
    logmel = LogMelSpectrogram(settings, 16000)(torch.zeros(4000))
    torch.testing.assert_close(logmel, torch.full_like(logmel, (np.log(1e-3) - 1) / 2))


def test_bands_beyond_the_sample_rate_are_a_user_error():
    with pytest.raises(UserError, match=r"f_max 8000.*clips.sample_rate 8000"):
        LogMelSpectrogram(LogMel(), sample_rate=8000)
