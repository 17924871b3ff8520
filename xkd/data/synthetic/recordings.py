"""Reads the recorded words that xkd ships: speech/recordings.flac, described in speech/README.md."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import numpy as np

from xkd.data.opening import open_media

SPEECH = Path(__file__).parent / "speech"
SAMPLES, LIST = "recordings.flac", "recordings.csv"
TEST_INDICES = range(5)  # the official split: the first five of each digit and speaker


@cache
def words() -> dict[str, np.ndarray]:
    """Reads all recordings: by name, <digit>_<speaker>_<index>, samples (n,) int16 at 8 kHz, at most one second."""
    with (SPEECH / LIST).open(newline="") as file:
        rows = list(csv.DictReader(file))
    with open_media(SPEECH / SAMPLES) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    ends = np.cumsum([int(row["samples"]) for row in rows])
    return dict(zip([row["name"] for row in rows], np.split(samples, ends[:-1]), strict=True))


@cache
def names(split: str, digit: int) -> tuple[str, ...]:
    """Returns the recordings of a digit in a split, sorted."""
    parts = [(name, *name.split("_")) for name in sorted(words())]
    return tuple(
        name for name, of, _, index in parts if int(of) == digit and (int(index) in TEST_INDICES) == (split == "test")
    )
