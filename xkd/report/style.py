"""One look for all figures, and PNG files that are equal byte for byte when their content is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.figure import Figure

from xkd.modalities import MODALITIES

plt = pyplot  # for all that draw: of this backend and look

# Okabe & Ito's colour-blind safe palette, without its yellow (too faint on white).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MODALITY = dict(zip((*MODALITIES, "both"), PALETTE, strict=False))
YARDSTICK = "#9A9A9A"
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": "#E3E3E3",
        "hatch.linewidth": 0.6,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "text.parse_math": False,  # labels may hold dollar signs
        "figure.dpi": 144,
    }
)


def line_styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Chooses colour, dashes and marker per name: without colour, marker and dashes still tell 28 names apart."""
    styles = {}
    for i, name in enumerate(names):
        turn, place = divmod(i, len(PALETTE))
        styles[name] = {
            "color": PALETTE[place],
            "linestyle": DASHES[(place + turn) % len(DASHES)],
            "marker": MARKERS[(place + 3 * turn) % len(MARKERS)],
            "markersize": 4,
            "markerfacecolor": PALETTE[place] if turn % 2 == 0 else "white",
            "linewidth": 1.2,
        }
    return styles


def message(text: str) -> Figure:
    """Draws a figure that says why there is nothing to see."""
    figure = plt.figure(figsize=(7, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return described(figure, text)


def described(figure: Figure, words: str) -> Figure:
    """Gives a figure its alternative text, unless it has one (that of `message`, say)."""
    if not figure.get_label():
        figure.set_label(words)
    return figure


def save_figure(figure: Figure, path: Path) -> str:
    """Writes a PNG without matplotlib's version stamp, frees the figure and returns its alternative text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = str(figure.get_label())
    # Not by `savefig`, which draws twice where figures have a layout.
    figure.canvas.print_png(path, metadata={"Software": None, "Description": words})  # type: ignore[attr-defined]
    plt.close(figure)
    return words
