"""Data that several tests read."""

import io
import wave
import zipfile

import numpy as np
import pytest


@pytest.fixture(scope="session")
def spoken_digits_zip(tmp_path_factory):
    """A zip laid out like the Free Spoken Digit Dataset, with short tones in it."""
    path = tmp_path_factory.mktemp("archive") / "digits.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for digit in range(10):
            content = _tone(200 + 100 * digit)
            for speaker in ("ann", "bob", "cem", "dan", "eva", "fay"):
                for index in range(50):
                    archive.writestr(f"digits-master/recordings/{digit}_{speaker}_{index}.wav", content)
        archive.writestr("digits-master/README.md", "tones")
    return path


def _tone(pitch: float) -> bytes:
    samples = 8000 * np.sin(2 * np.pi * pitch * np.arange(1600) / 8000)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()
