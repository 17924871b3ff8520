"""Draws a prepared data set: some clips as frames and log-mels, and how long and large all clips are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from xkd.data.clips import ClipStore
from xkd.files import replacing
from xkd.modalities.logmel import LogMelSpectrogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES_SHOWN = 8  # per clip
HEIGHT_INCHES = 0.62  # of a row


def draw_contact_sheet(store: ClipStore, rows: int, logmel: LogMelSpectrogram, path: Path) -> None:
    """Writes `rows` evenly picked clips, one per row, as PNG: frames on the left, log-mel on the right."""
    pyplot = _pyplot()
    chosen = np.unique(np.linspace(0, len(store) - 1, min(rows, len(store))).round().astype(int)).tolist()
    figure, axes = pyplot.subplots(
        len(chosen),
        2,
        figsize=(7.2, HEIGHT_INCHES * len(chosen)),
        width_ratios=[FRAMES_SHOWN, 2.4],
        squeeze=False,
        layout="constrained",
    )
    for i, (left, right) in zip(chosen, axes, strict=True):
        if store.has("video", i):
            left.imshow(_strip(store.video(i)), aspect="equal")
        if store.has("audio", i):
            right.imshow(
                logmel(store.audio(i))[0].numpy(), origin="lower", aspect="auto", cmap="magma", vmin=-2, vmax=2
            )
        left.set_ylabel(store.labels[i][:24], rotation=0, ha="right", va="center", fontsize=8)
        for axis in (left, right):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    _save(figure, path)


def draw_histograms(rows: pd.DataFrame, sizes: Sequence[int], classes: dict[str, dict[str, int]], path: Path) -> None:
    """Writes histograms as PNG: seconds, kilobytes and longer side of the clips, and usable clips per class.

    Args:
        rows: usable clips of a manifest.
        sizes: bytes of each.
        classes: per label, counts as `prepare` writes them.
    """
    pyplot = _pyplot()
    videos = rows[rows["has_video"]]
    panels: dict[str, pd.Series | np.ndarray] = {
        "seconds": rows["seconds"].astype(float),
        "kilobytes": np.asarray(sizes) / 1e3,
        "longer side of a frame, pixels": videos[["width", "height"]].astype(float).max(axis=1),
        "usable clips of a class": pd.Series([counts["usable"] for label, counts in classes.items() if label]),
    }
    figure, axes = pyplot.subplots(2, 2, figsize=(7.2, 4.4), layout="constrained")
    for axis, (name, values) in zip(axes.flat, panels.items(), strict=True):
        if len(values):
            axis.hist(values, bins=30, color="0.35")
        else:
            axis.text(0.5, 0.5, "none", ha="center", va="center", transform=axis.transAxes)
        axis.set_xlabel(name)
        axis.set_ylabel("classes" if "class" in name else "clips")
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _pyplot() -> ModuleType:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams["text.parse_math"] = False  # labels may hold dollar signs
    return pyplot


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=80, format="png")
    _pyplot().close(figure)


def _strip(video: torch.Tensor) -> np.ndarray:
    """Puts evenly picked frames of (T, 3, H, W) side by side with a thin white gap: (H, width, 3)."""
    numbers = torch.linspace(0, len(video) - 1, FRAMES_SHOWN).round().long()
    frames = video[numbers].permute(0, 2, 3, 1).numpy()
    padded = np.pad(frames, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)
