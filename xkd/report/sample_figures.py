"""Draws reconstructions.png and refinement.png: held-out clips as one trained run sees them."""

from __future__ import annotations

import matplotlib.patheffects as effects
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from xkd.modalities import MODALITIES
from xkd.report.arrays import Arrays, shown_run
from xkd.report.collect import Results
from xkd.report.style import described, message, plt

STAGES = ("true", "masked", "predicted")
REFINED_CLIPS = 5
SLICES = 4  # of a video's time slices, evenly picked where there are more
NUMBERED = 8  # patches side by side; more of them leave no room for numbers
TICKS = (0.25, 0.5, 1, 2, 4)  # of the weights' logarithmic scale, which ends with them


def reconstructions(results: Results) -> Figure:
    """Draws the middle frame and log-mel of every sample clip: true, masked and predicted."""
    found = shown_run(results, "samples.npz", [f"{m}_{s}" for m in MODALITIES for s in STAGES])
    if found is None:
        return message("No ablation of this table reconstructs both modalities.")
    run, samples = found
    clips, frames = samples["video_true"].shape[:2]
    figure, axes = plt.subplots(6, clips, figsize=(1.25 * clips + 0.7, 7.6), squeeze=False)
    for column in range(clips):
        for row, stage in enumerate(STAGES):
            axes[row, column].imshow(samples[f"video_{stage}"][column, frames // 2], interpolation="nearest")
            _log_mel(axes[row + 3, column], samples, stage, column)
        axes[0, column].set_title(f"clip {column + 1}", loc="center", fontsize=9)
    for row, axis in enumerate(axes[:, 0]):
        axis.set_ylabel(f"{'log-mel' if row > 2 else 'frame'}\n{STAGES[row % 3]}")
    _bare(axes)
    whose = f"Clips of {run.dataset}" if results.elsewhere(run.ablation) else "Held-out clips"
    figure.suptitle(f"{whose}, {run.ablation} seed {run.seed}", x=0.01, ha="left", fontsize=10)
    return described(
        figure,
        f"{whose}, {run.ablation} seed {run.seed}, in a grid of {clips} columns: middle frame true, with masked "
        "patches grey, and with those patches predicted; below it the log-mel in the same three stages. "
        f"{_errors(samples)}",
    )


def refinement(results: Results) -> Figure:
    """Draws each clip's frames and log-mel, plain and under the cross-modal weights of the distillation targets."""
    found = shown_run(results, "samples.npz", ["video_true", "audio_true", "weights_video", "weights_audio"])
    if found is None:
        return message("No ablation of this table refines its targets with weights.")
    run, samples = found
    clips, slices = len(samples["weights_video"][:REFINED_CLIPS]), samples["weights_video"].shape[1]
    chosen = np.unique(np.linspace(0, slices - 1, min(SLICES, slices)).round().astype(int))
    ratios = [1] * (2 * len(chosen)) + [1.8, 1.8]
    size = (1.25 * sum(ratios) + 1.6, 1.4 * clips + 0.6)
    figure, axes = plt.subplots(clips, len(ratios), figsize=size, width_ratios=ratios, squeeze=False)
    for clip, row in enumerate(axes):
        image = _refined_clip(row, samples, clip, chosen)
        row[0].set_ylabel(f"clip {clip + 1}")
    for column, title in (
        (0, "frames"),
        (len(chosen), "frames and weights"),
        (-2, "log-mel"),
        (-1, "log-mel and weights"),
    ):
        axes[0, column].set_title(title, fontsize=9)
    _bare(axes)
    opaque = ScalarMappable(image.norm, image.cmap)
    bar = figure.colorbar(opaque, ax=axes, label="weight over the clip's mean", shrink=0.7, aspect=30, extend="both")
    bar.set_ticks(TICKS, labels=[f"{tick:g}" for tick in TICKS])
    bar.ax.minorticks_off()
    figure.suptitle(f"Refinement weights, {run.ablation} seed {run.seed}", x=0.01, ha="left", fontsize=10)
    parts = np.concatenate([samples[f"weights_{m}"][:clips].ravel() for m in MODALITIES])
    return described(
        figure,
        f"{clips} held-out clips of {run.ablation} seed {run.seed}, one per row: frames and log-mel, each plain and "
        "again in grey with the refinement weight of every patch as a transparent colour. Weights reach from "
        f"{parts.min():.2f} to {parts.max():.2f} times the clip's mean.",
    )


def _errors(samples: Arrays) -> str:
    """Says how far the filled-in patches are from the truth, beside a guess of the mean."""
    parts = []
    for modality in MODALITIES:
        true, predicted = samples[f"{modality}_true"], samples[f"{modality}_predicted"]
        hidden = predicted != true
        if hidden.any():
            error = float(np.sqrt(np.mean((predicted - true)[hidden] ** 2)))
            parts.append(f"{modality} {error:.2f} (deviation of the truth there {float(true[hidden].std()):.2f})")
    return f"Root mean square error of the predicted patches: {', '.join(parts)}." if parts else ""


def _refined_clip(row: np.ndarray, samples: Arrays, clip: int, chosen: np.ndarray) -> AxesImage:
    """Fills one row of axes; returns an image of the weights' scale."""
    weights, frames = samples["weights_video"][clip], samples["video_true"][clip]
    length = len(frames) // len(weights)
    for plain, under, i in zip(row, row[len(chosen) :], chosen, strict=False):
        frame = frames[i * length + length // 2]
        plain.imshow(frame, interpolation="nearest")
        under.imshow(frame.mean(-1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        _overlay(under, weights[i], frame.shape[:2])
    _log_mel(row[-2], samples, "true", clip)
    _log_mel(row[-1], samples, "true", clip, colours="gray")
    return _overlay(row[-1], samples["weights_audio"][clip], samples["audio_true"][clip].shape)


def _overlay(axis: Axes, weight_HW: np.ndarray, size: tuple[int, int]) -> AxesImage:
    """Draws transparent weights over the image on `axis`, with numbers where the patches are few enough to be read."""
    height, width = size
    extent = axis.images[0].get_extent()
    origin, aspect = axis.images[0].origin, axis.get_aspect()
    image = axis.imshow(
        weight_HW,
        extent=extent,
        origin=origin,
        aspect=aspect,
        norm=LogNorm(TICKS[0], TICKS[-1]),
        cmap="viridis",
        alpha=0.6,
        interpolation="nearest",
    )
    rows, columns = weight_HW.shape
    if max(rows, columns) <= NUMBERED:
        outline = [effects.withStroke(linewidth=1.6, foreground="black")]
        for row, column in np.ndindex(rows, columns):
            place = ((column + 0.5) * width / columns - 0.5, (row + 0.5) * height / rows - 0.5)
            text = f"{weight_HW[row, column]:.2g}"
            axis.text(*place, text, ha="center", va="center", fontsize=6.5, color="white", path_effects=outline)
    return image


def _log_mel(axis: Axes, samples: Arrays, stage: str, clip: int, colours: str = "magma") -> None:
    """Draws a log-mel, low frequencies at the bottom; one scale for the three stages of a clip."""
    true = samples["audio_true"][clip]
    scale = {"vmin": true.min(), "vmax": true.max(), "cmap": colours}
    axis.imshow(samples[f"audio_{stage}"][clip], origin="lower", aspect="auto", interpolation="nearest", **scale)


def _bare(axes: np.ndarray) -> None:
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
