"""A picture of some clips: frames in rows, log-mels beside them.

python -m xkd.data.contact_sheet --manifest data/talking_digits/manifest.csv --out docs/figures/talking_digits.png
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch

from xkd import params
from xkd.data.clips import ClipStore, open_clips
from xkd.data.logmel import LogMelSpectrogram
from xkd.errors import UserError
from xkd.files import replacing

PICTURES = 8  # shown per clip
HEIGHT_INCHES = 0.62  # of a row


def draw(store: ClipStore, rows: int, logmel: LogMelSpectrogram, path: Path) -> None:
    """Writes the first `rows` clips that have both modalities, one per row, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chosen = list(range(min(rows, len(store))))
    figure, axes = pyplot.subplots(
        len(chosen),
        2,
        figsize=(7.2, HEIGHT_INCHES * len(chosen)),
        width_ratios=[PICTURES, 2.4],
        squeeze=False,
        layout="constrained",
    )
    for i, (left, right) in zip(chosen, axes, strict=True):
        left.imshow(_strip(store.video(i)), aspect="equal")
        left.set_ylabel(store.labels[i], rotation=0, ha="right", va="center", fontsize=8)
        right.imshow(logmel(store.audio(i))[0], origin="lower", aspect="auto", cmap="magma", vmin=-2, vmax=2)
        for axis in (left, right):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=80, format="png")
    pyplot.close(figure)


@click.command()
@click.option("--params", "settings", type=Path, default=Path("params.yaml"), show_default=True)
@click.option(
    "--manifest", type=Path, required=True, help="manifest.csv of a data set whose clips have both modalities."
)
@click.option("--rows", type=click.IntRange(min=1), default=10, show_default=True, help="Clips shown.")
@click.option("--split", type=click.Choice(["train", "test"]), default="train", show_default=True)
@click.option("--out", type=Path, required=True, help="PNG to write.")
def main(settings: Path, manifest: Path, rows: int, split: str, out: Path) -> None:
    """Draw a contact sheet of clips with their log-mels."""
    try:
        chosen = params.load(settings)
        draw(open_clips(manifest, split), rows, LogMelSpectrogram(chosen.logmel, chosen.clips.sample_rate), out)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None


def _strip(video: torch.Tensor) -> np.ndarray:
    """Pictures (T, 3, H, W), evenly picked, side by side with a thin white gap: (H, width, 3)."""
    numbers = torch.linspace(0, len(video) - 1, PICTURES).round().long()
    pictures = video[numbers].permute(0, 2, 3, 1).numpy()
    padded = np.pad(pictures, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)


if __name__ == "__main__":
    main()
