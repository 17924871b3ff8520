"""The paper's figures, as data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import resources

import pandas as pd

CITATION = "Sarkar & Etemad, AAAI 2024, arXiv 2211.13929"
TASKS = {
    "UCF101 video": ("ucf101", "video"),
    "HMDB51 video": ("hmdb51", "video"),
    "ESC50 audio": ("esc50", "audio"),
}  # linear probes after Kinetics400, whose orderings a table of other data is compared with


@dataclass(frozen=True)
class Measure:
    """Pretraining set, data set of the task, protocol, modality and metric of a figure, in the paper's words."""

    pretraining: str
    task: str
    protocol: str
    modality: str
    metric: str


@dataclass(frozen=True)
class PaperFigure:
    """One cell of a table of the paper, in percent."""

    table: str
    method: str
    measure: Measure
    percent: float


class PaperResults:
    """All figures of the paper. Some methods are in several of its tables, with other settings and other figures."""

    @cached_property
    def figures(self) -> list[PaperFigure]:
        """Figures in the order of the file: tables of ablations, then comparisons with other work."""
        with resources.files("xkd.report").joinpath("paper_results.csv").open() as lines:
            rows = pd.read_csv(lines, comment="#").to_dict("records")
        keys = ("pretraining", "task", "protocol", "modality", "metric")
        return [
            PaperFigure(row["table"], row["method"], Measure(*(row[key] for key in keys)), float(row["percent"]))
            for row in rows
        ]

    @property
    def tables(self) -> list[str]:
        """Names of the paper's tables."""
        return list(dict.fromkeys(figure.table for figure in self.figures))

    def of(self, method: str | None, measure: Measure) -> dict[str, float]:
        """Returns the figure of a method in each table of the paper that gives one."""
        return {
            figure.table: figure.percent
            for figure in self.figures
            if figure.method == method and figure.measure == measure
        }

    def differences(
        self, method: str | None, reference: str | None, measures: dict[str, Measure]
    ) -> tuple[str, dict[str, float]] | None:
        """Returns the first table with both methods, and the points between them by measure; None without one."""
        for table in self.tables:
            found = {}
            for name, measure in measures.items():
                one, other = self.of(method, measure).get(table), self.of(reference, measure).get(table)
                if one is not None and other is not None:
                    found[name] = one - other
            if found:
                return table, found
        return None


def mirrored(title: str) -> Measure:
    """Returns the measure of one of `TASKS`."""
    task, modality = TASKS[title]
    return Measure("kinetics400", task, "linear", modality, "top1")
