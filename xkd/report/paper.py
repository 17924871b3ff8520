"""The paper's own figures, as data: another data set and full-size networks, so for orientation only."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import pandas as pd

CITATION = "Sarkar & Etemad, AAAI 2024, arXiv 2211.13929"
TASKS = {
    "UCF101 video": ("ucf101", "video"),
    "HMDB51 video": ("hmdb51", "video"),
    "ESC50 audio": ("esc50", "audio"),
}


@dataclass(frozen=True)
class PaperFigure:
    """Linear-probe top-1 in percent and the table of the paper that reports it."""

    table: str
    percent: float


class PaperResults:
    """Linear probes after Kinetics400 pretraining, of the data sets in `TASKS`; every figure in `all_rows`."""

    def __init__(self) -> None:
        text = resources.files("xkd.report").joinpath("paper_results.csv")
        with text.open() as lines:
            rows = pd.read_csv(lines, comment="#")
        self.all_rows = rows
        chosen = (rows.pretraining == "kinetics400") & (rows.protocol == "linear") & (rows.metric == "top1")
        self._rows = rows[chosen]

    def figure(self, method: str | None, task: str, table: str | None = None) -> PaperFigure | None:
        """The figure of `method`, or None where the paper gives none.

        The paper reports some methods in several tables with different settings: without `table`, the first table of
        the file (losses, refinement, then comparisons with other work) counts.
        """
        dataset, modality = TASKS[task]
        rows = self._rows[
            (self._rows.method == method) & (self._rows.task == dataset) & (self._rows.modality == modality)
        ]
        rows = rows if table is None else rows[rows.table == table]
        return PaperFigure(rows.table.iloc[0], float(rows.percent.iloc[0])) if len(rows) else None
