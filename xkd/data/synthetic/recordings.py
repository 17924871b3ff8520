"""Reads recorded digits: the Free Spoken Digit Dataset, from the zip of its repository."""

from __future__ import annotations

import io
import re
import wave
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from xkd.data.synthetic.knobs import SAMPLE_RATE, SAMPLES
from xkd.errors import UserError

EXPECTED_RECORDINGS = 3000
TEST_INDICES = range(5)  # the official split: the first five of each digit and speaker
SILENCE_DB = -32.0  # below the loudest 20 ms: not speech
_NAME = re.compile(r"(?:^|/)recordings/(\d)_(\w+)_(\d+)\.wav$")


class Recordings:
    """Reads the recordings of the data set by split and digit.

    Raises:
        UserError: the file is missing, not a zip, or does not hold the 3,000 recordings.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such file; give the zip of the Free Spoken Digit Dataset") from None
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.path}: not a readable zip ({error}); download it again") from None
        found = [(match, name) for name in self._zip.namelist() if (match := _NAME.search(name))]
        if len(found) != EXPECTED_RECORDINGS:
            raise UserError(
                f"{self.path}: holds {len(found)} files named recordings/<digit>_<speaker>_<index>.wav, "
                f"not the {EXPECTED_RECORDINGS} of the Free Spoken Digit Dataset; download it again"
            )
        self._members: dict[tuple[str, int], list[str]] = {}
        for match, name in sorted(found, key=lambda item: item[1]):
            split = "test" if int(match[3]) in TEST_INDICES else "train"
            self._members.setdefault((split, int(match[1])), []).append(name)

    def names(self, split: str, digit: int) -> list[str]:
        """Returns the members of the zip for a split and digit, sorted."""
        return self._members[split, digit]

    def word(self, name: str) -> np.ndarray:
        """Reads a recording and cuts off its silent ends: (samples,) float at 16 kHz, at most one second."""
        with wave.open(io.BytesIO(self._zip.read(name))) as file:
            rate, channels = file.getframerate(), file.getnchannels()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, channels)
        signal = samples.mean(axis=1) / 32768
        return _loudest_second(_without_silence(resample_poly(signal, SAMPLE_RATE, rate)))


@lru_cache(maxsize=2)
def open_recordings(path: str) -> Recordings:
    """Opens the archive, once per process."""
    return Recordings(path)


def _without_silence(signal: np.ndarray) -> np.ndarray:
    step = SAMPLE_RATE // 50
    blocks = np.pad(signal, (0, -len(signal) % step)).reshape(-1, step)
    level = 10 * np.log10((blocks**2).mean(axis=1) + 1e-12)
    loud = np.flatnonzero(level > level.max() + SILENCE_DB)
    return signal[loud[0] * step : (loud[-1] + 1) * step]


def _loudest_second(signal: np.ndarray) -> np.ndarray:
    if len(signal) <= SAMPLES:
        return signal
    energy = np.concatenate([[0.0], np.cumsum(signal**2)])
    start = int(np.argmax(energy[SAMPLES:] - energy[:-SAMPLES]))
    return signal[start : start + SAMPLES]
