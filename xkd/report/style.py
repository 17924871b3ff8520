"""One look for all figures, and PNG files that are equal byte for byte when their content is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

# Okabe & Ito's colour-blind safe palette, without its yellow (too faint on white).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MODALITY = {"video": PALETTE[0], "audio": PALETTE[1], "both": PALETTE[2]}
YARDSTICK = "#9A9A9A"
DASHES = ("-", "--", ":")

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": "#E3E3E3",
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "savefig.dpi": 130,
    }
)


def line_styles(names: Iterable[str]) -> dict[str, dict]:
    """A colour and dash pattern per name, distinct for up to 21 names."""
    count = len(PALETTE)
    return {
        name: {"color": PALETTE[i % count], "linestyle": DASHES[i // count % len(DASHES)]}
        for i, name in enumerate(names)
    }


def message(text: str) -> Figure:
    """A figure that says why there is nothing to see."""
    figure = plt.figure(figsize=(7, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def save(figure: Figure, path: Path, format: str | None = None) -> None:
    """Writes a PNG without the version stamp that matplotlib adds, and frees the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format=format, metadata={"Software": None})
    plt.close(figure)
