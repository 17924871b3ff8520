"""Makes the recordings that xkd ships, from the zip of the Free Spoken Digit Dataset: `pack_recordings.py ZIP FOLDER`.

Of each digit and speaker the first 30 recordings, 0 to 4 of which are the official test split. Silent ends are cut off,
what is left is scaled to full scale and rounded to 8 bits, and all of it is one FLAC file beside a list of the parts.
"""

from __future__ import annotations

import csv
import io
import re
import sys
import wave
import zipfile
from pathlib import Path

import av
import numpy as np

RATE = 8000
EACH = 30
SILENCE_DB = -32.0  # below the loudest 20 ms: not speech
STEPS = 127  # of 8 bits, on each side of zero
NAME = re.compile(r"/recordings/((\d)_(\w+)_(\d+))\.wav$")


def main(archive: str, folder: str) -> None:
    """Writes recordings.flac and recordings.csv into `folder`."""
    parts, rows = [], []
    with zipfile.ZipFile(archive) as opened:
        for match in sorted(filter(None, map(NAME.search, opened.namelist())), key=lambda m: (m[2], m[3], int(m[4]))):
            if int(match[4]) < EACH:
                parts.append(_word(opened.read(match.string)))
                rows.append((match[1], len(parts[-1])))
    target = Path(folder)
    _write_flac(target / "recordings.flac", np.concatenate(parts))
    with (target / "recordings.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("name", "samples"), *rows])


def _word(content: bytes) -> np.ndarray:
    """Reads a recording: (samples,) int16, the low 8 bits of which are zero."""
    with wave.open(io.BytesIO(content)) as file:
        assert file.getframerate() == RATE
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
    signal = _loudest_second(_without_silence(samples.mean(axis=1)))
    return np.rint(signal * (STEPS / np.abs(signal).max())).astype(np.int16) << 8


def _without_silence(signal: np.ndarray) -> np.ndarray:
    step = RATE // 50
    blocks = np.pad(signal, (0, -len(signal) % step)).reshape(-1, step)
    level = 10 * np.log10((blocks**2).mean(axis=1) + 1e-3)
    loud = np.flatnonzero(level > level.max() + SILENCE_DB)
    return signal[loud[0] * step : (loud[-1] + 1) * step]


def _loudest_second(signal: np.ndarray) -> np.ndarray:
    if len(signal) <= RATE:
        return signal
    energy = np.concatenate([[0.0], np.cumsum(signal**2)])
    start = int(np.argmax(energy[RATE:] - energy[:-RATE]))
    return signal[start : start + RATE]


def _write_flac(path: Path, samples: np.ndarray) -> None:
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono", options={"compression_level": "12"})
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main(*sys.argv[1:])
