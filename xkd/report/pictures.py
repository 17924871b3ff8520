"""reconstructions.png and refinement.png: held-out clips as one trained run sees them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from xkd.errors import UserError
from xkd.report.collect import Results, Run
from xkd.report.style import message, plt

FULL_METHOD = "xkd"
STAGES = ("masked", "predicted", "true")
REFINED_CLIPS = 3
Samples = dict[str, np.ndarray]


def reconstructions(results: Results) -> Figure:
    """Middle frame and log-mel of every sample clip: masked, predicted and true."""
    found = _samples(results, [f"{m}_{s}" for m in ("video", "audio") for s in STAGES])
    if found is None:
        return message("No ablation of this table reconstructs both modalities.")
    run, samples = found
    clips, frames = samples["video_true"].shape[:2]
    figure, axes = plt.subplots(6, clips, figsize=(1.15 * clips + 0.6, 7.2), squeeze=False)
    for column in range(clips):
        for row, stage in enumerate(STAGES):
            axes[row, column].imshow(samples[f"video_{stage}"][column, frames // 2], interpolation="nearest")
            _log_mel(axes[row + 3, column], samples, stage, column)
    for row, axis in enumerate(axes[:, 0]):
        axis.set_ylabel(f"{'audio' if row > 2 else 'video'}\n{STAGES[row % 3]}")
    _bare(axes)
    figure.suptitle(f"Held-out clips, {run.ablation} seed {run.seed}", x=0.01, ha="left", fontsize=10)
    return figure


def refinement(results: Results) -> Figure:
    """Cross-modal weights of the distillation targets: per clip its frames and log-mel, the weights below."""
    found = _samples(results, ["video_true", "audio_true", "weights_video", "weights_audio"])
    if found is None:
        return message("No ablation of this table refines its targets with weights.")
    run, samples = found
    clips = min(REFINED_CLIPS, len(samples["weights_video"]))
    slices = samples["weights_video"].shape[1]
    ratios = [1] * slices + [1.6]
    figure, axes = plt.subplots(
        2 * clips, slices + 1, figsize=(1.3 * (slices + 1.6) + 1, 2.5 * clips), width_ratios=ratios, squeeze=False
    )
    top = max(samples[f"weights_{m}"][:clips].max() for m in ("video", "audio"))
    for clip in range(clips):
        images = _refined_clip(axes[2 * clip : 2 * clip + 2], samples, clip, float(top))
    _bare(axes)
    figure.colorbar(images, ax=axes, label="weight (mean of the clip: 1)", shrink=0.6)
    figure.suptitle(f"Refinement weights, {run.ablation} seed {run.seed}", x=0.01, ha="left", fontsize=10)
    return figure


def _refined_clip(axes: np.ndarray, samples: Samples, clip: int, top: float):
    """Fills two rows: pictures, and weights on one colour scale; returns an image of that scale."""
    weights = samples["weights_video"][clip]
    frames = samples["video_true"][clip]
    length = len(frames) // len(weights)
    for i, weight in enumerate(weights):
        axes[0, i].imshow(frames[i * length + length // 2], interpolation="nearest")
        axes[1, i].imshow(weight, vmin=0, vmax=top, cmap="viridis")
    _log_mel(axes[0, -1], samples, "true", clip)
    axes[0, 0].set_ylabel(f"clip {clip + 1}")
    axes[1, 0].set_ylabel("weights")
    return axes[1, -1].imshow(
        samples["weights_audio"][clip], vmin=0, vmax=top, cmap="viridis", origin="lower", aspect="auto"
    )


def _log_mel(axis, samples: Samples, stage: str, clip: int) -> None:
    """Low frequencies at the bottom; one scale for the three stages of a clip."""
    true = samples["audio_true"][clip]
    picture = samples[f"audio_{stage}"][clip]
    axis.imshow(
        picture, origin="lower", aspect="auto", vmin=true.min(), vmax=true.max(), cmap="magma", interpolation="nearest"
    )


def _bare(axes: np.ndarray) -> None:
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)


def _samples(results: Results, keys: list[str]) -> tuple[Run, Samples] | None:
    """The first seed of the full method if it has all `keys`, else of the first ablation that has."""
    for ablation in sorted(results.runs, key=lambda name: name != FULL_METHOD):
        run = results.runs[ablation][0]
        samples = _load(run.folder / "samples.npz")
        if all(key in samples for key in keys):
            return run, samples
    return None


def _load(path: Path) -> Samples:
    try:
        with np.load(path) as archive:
            return dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: unreadable ({error}); remove it and pretrain that run again") from error
