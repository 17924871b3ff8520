"""Previews of prepared clips, small images and audio that a page can hold: data URIs."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

from xkd.data.clips import ClipStore, open_clips
from xkd.data.contact_sheet import draw_contact_sheet
from xkd.errors import UserError
from xkd.modalities import MODALITIES
from xkd.modalities.logmel import LogMelSpectrogram
from xkd.report import style
from xkd.settings import Params

FRAMES, PIXELS = 4, 64  # of a strip: frames side by side, height
SHEET_ROWS = 10
PLAYED_SECONDS = 2.0  # longer audio is cut


class Previews:
    """Makes previews of the clips of `store`, by id."""

    def __init__(self, store: ClipStore, params: Params) -> None:
        self.store, self.rate = store, params.clips.sample_rate
        self.logmel = LogMelSpectrogram(params.logmel, self.rate)
        makers = (
            lambda clip: {"image": self.strip(clip)},
            lambda clip: {"image": self.spectrogram(clip), "sound": self.sound(clip)},
        )
        self._makers: dict[str, Callable[[str], dict[str, str]]] = dict(zip(MODALITIES, makers, strict=True))
        self._numbers = {name: number for number, name in enumerate(store.ids)}

    def of(self, modality: str, clip: str) -> dict[str, str]:
        """Returns the `image` of a clip, and its `sound` where the modality has one."""
        return self._makers[modality](clip)

    def strip(self, clip: str) -> str:
        """Draws frames of the clip, evenly picked, side by side: PNG."""
        video = self.store.video(self._numbers[clip])
        chosen = np.linspace(0, len(video) - 1, FRAMES).round().astype(int)
        frames = video[chosen].permute(0, 2, 3, 1).numpy()
        gaps = np.pad(frames, ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=255)
        strip = Image.fromarray(np.concatenate(list(gaps), axis=1)[:, :-1])
        if strip.height > PIXELS:
            strip = strip.resize((round(strip.width * PIXELS / strip.height), PIXELS))
        return _png(strip)

    def spectrogram(self, clip: str) -> str:
        """Draws the log-mel from its lowest value to its highest, low frequencies at the bottom: PNG."""
        values = self.logmel(self._samples(clip))[0].numpy()
        span = max(float(values.max() - values.min()), 1e-6)
        colours = matplotlib.colormaps["magma"]((values[::-1] - values.min()) / span, bytes=True)
        return _png(Image.fromarray(colours[..., :3]))

    def sound(self, clip: str) -> str:
        """Returns the first seconds: WAV, mono, 16 bits."""
        samples = self._samples(clip)[: round(PLAYED_SECONDS * self.rate)].numpy()
        data = io.BytesIO()
        with wave.open(data, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.rate)
            file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
        return data_uri("audio/wav", data.getvalue())

    def _samples(self, clip: str) -> Tensor:
        return self.store.audio(self._numbers[clip])


def previews_at_hand(params: Params, folder: Path) -> Previews | None:
    """Opens the prepared clips of a data set; None where they were removed or damaged since: a report can do without.

    Args:
        folder: data/<dataset>, of which the manifest is there.
    """
    try:
        store = open_clips(folder / "manifest.csv")
        media = Previews(store, params)
        for modality in MODALITIES:
            if store.has(modality, 0):
                media.of(modality, store.ids[0])
    except UserError:
        return None
    return media


def contact_sheet(media: Previews | None, path: Path) -> str:
    """Draws some clips; returns the alternative text."""
    if media is None:
        return style.save_figure(style.message("The prepared clips were not at hand when this page was made."), path)
    draw_contact_sheet(media.store, SHEET_ROWS, media.logmel, path)
    return f"Contact sheet of {min(SHEET_ROWS, len(media.store))} clips, one per row: label, eight frames and log-mel."


def data_uri(kind: str, content: bytes) -> str:
    """Returns a file as a URL that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _png(image: Image.Image) -> str:
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return data_uri("image/png", data.getvalue())
