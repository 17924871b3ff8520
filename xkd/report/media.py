"""Prepared clips as small pictures and sounds that a page can hold: data URIs."""

from __future__ import annotations

import base64
import io
import wave
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

from xkd.data.clips import ClipStore, open_clips
from xkd.data.contact_sheet import draw
from xkd.modalities.logmel import LogMelSpectrogram
from xkd.errors import UserError
from xkd.report import style
from xkd.settings import Params

PICTURES, PIXELS = 4, 64  # of a strip: pictures side by side, height
SHEET_ROWS = 10
SECONDS = 2.0  # of a sound: longer ones are cut


class Media:
    """Pictures and sounds of the clips of `store`, by id."""

    def __init__(self, store: ClipStore, params: Params) -> None:
        self.store, self.rate = store, params.clips.sample_rate
        self.logmel = LogMelSpectrogram(params.logmel, self.rate)
        self._numbers = {name: number for number, name in enumerate(store.ids)}

    def strip(self, clip: str) -> str:
        """PNG: pictures of the clip, evenly picked, side by side."""
        video = self.store.video(self._numbers[clip])
        chosen = np.linspace(0, len(video) - 1, PICTURES).round().astype(int)
        pictures = video[chosen].permute(0, 2, 3, 1).numpy()
        gaps = np.pad(pictures, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=255)
        picture = Image.fromarray(np.concatenate(list(gaps), axis=1)[:, :-1])
        if picture.height > PIXELS:
            picture = picture.resize((round(picture.width * PIXELS / picture.height), PIXELS))
        return _png(picture)

    def spectrogram(self, clip: str) -> str:
        """PNG: the log-mel from its lowest value to its highest, low frequencies at the bottom."""
        values = self.logmel(self._samples(clip))[0].numpy()
        span = max(float(values.max() - values.min()), 1e-6)
        colours = matplotlib.colormaps["magma"]((values[::-1] - values.min()) / span, bytes=True)
        return _png(Image.fromarray(colours[..., :3]))

    def sound(self, clip: str) -> str:
        """WAV: the first seconds, mono, 16 bits."""
        samples = self._samples(clip)[: round(SECONDS * self.rate)].numpy()
        data = io.BytesIO()
        with wave.open(data, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.rate)
            file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
        return data_uri("audio/wav", data.getvalue())

    def _samples(self, clip: str) -> Tensor:
        return self.store.audio(self._numbers[clip])


def clips_at_hand(params: Params, folder: Path) -> Media | None:
    """The prepared clips of a data set; None where they were removed or damaged since: a report can do without.

    Args:
        folder: data/<dataset>, of which the manifest is there.
    """
    try:
        store = open_clips(folder / "manifest.csv")
        media = Media(store, params)
        for modality, show in (("video", media.strip), ("audio", media.spectrogram)):
            if store.has(modality, 0):
                show(store.ids[0])
    except UserError:
        return None
    return media


def contact_sheet(media: Media | None, path: Path) -> str:
    """Draws some clips; returns the alternative text."""
    if media is None:
        return style.save(style.message("The prepared clips were not at hand when this page was made."), path)
    draw(media.store, SHEET_ROWS, media.logmel, path)
    return (
        f"Contact sheet of {min(SHEET_ROWS, len(media.store))} clips, one per row: label, eight pictures and log-mel."
    )


def data_uri(kind: str, content: bytes) -> str:
    """A file as a URL that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _png(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return data_uri("image/png", data.getvalue())
