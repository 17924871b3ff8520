"""The paper's figures, as data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources

import pandas as pd
import yaml

CITATION = "Sarkar & Etemad, AAAI 2024, arXiv 2211.13929"
KINETICS = "kinetics400"
LITTLE = 1.0  # points: smaller differences count as none
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


@dataclass(frozen=True)
class Claim:
    """An ordering of two rows that the paper claims.

    Attributes:
        table, row, than, modality: in the names of paper_results.csv.
        expects: "above" or "equal".
        says: the claim in words.
        abstract: whether the abstract makes it.
        protocol: the only one that is meant, if any.
        pretraining, than_pretraining: of the first and of the other row, if the claim compares two.
        points: sizes that no table of the paper gives, by data set.
    """

    table: str
    row: str
    than: str
    modality: str
    expects: str
    says: str
    abstract: bool = False
    protocol: str = ""
    pretraining: str = ""
    than_pretraining: str = ""
    points: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        relation = "as good as" if self.expects == "equal" else self.expects
        row, than = (
            f"{name} on {data}" if data else name
            for name, data in ((self.row, self.pretraining), (self.than, self.than_pretraining))
        )
        return f"{row} {relation} {than}, {self.modality}"

    @property
    def methods(self) -> tuple[str, str]:
        """The methods of the two rows."""
        return self.row, self.than

    def holds(self, figure: PaperFigure, method: str) -> bool:
        """Returns whether a figure of the paper belongs to the claim, as one of `method`."""
        one = figure.measure
        of_claim = (figure.table, figure.method, one.modality) == (self.table, method, self.modality)
        return of_claim and self.protocol in ("", one.protocol)

    def other(self, measure: Measure) -> Measure | None:
        """Returns what must be measured of the other row beside `measure` of the first; None if nothing."""
        if self.pretraining in ("", measure.pretraining):
            return replace(measure, pretraining=self.than_pretraining or measure.pretraining)
        return None

    def direction(self, sizes: dict[Measure, float]) -> str:
        """Returns "above" or "equal within M": M points, the largest of the sizes given, and 1 at least."""
        return self.expects if self.expects == "above" else f"equal within {max(LITTLE, *map(abs, sizes.values())):.1f}"


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

    @cached_property
    def claims(self) -> list[Claim]:
        """The orderings that the paper claims, in the order of its tables."""
        with resources.files("xkd.report").joinpath("paper_claims.yaml").open() as lines:
            return [Claim(**entry) for entry in yaml.safe_load(lines)]

    def sizes(self, claim: Claim) -> dict[Measure, float]:
        """Returns the points between the two rows of a claim, by what was measured, here of the first row."""
        told = {Measure(KINETICS, task, "linear", claim.modality, "top1"): size for task, size in claim.points.items()}
        ours, others = ({f.measure: f.percent for f in self.figures if claim.holds(f, m)} for m in claim.methods)
        pairs = [(measure, claim.other(measure)) for measure in ours]
        return told | {measure: ours[measure] - others[other] for measure, other in pairs if other in others}


def mirrored(title: str) -> Measure:
    """Returns the measure of one of `TASKS`."""
    task, modality = TASKS[title]
    return Measure(KINETICS, task, "linear", modality, "top1")
