"""Finds the figures of ours that measure what a figure of the paper measures, by kinds of data sets, never by names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from xkd import registry
from xkd.params import dataset_of, recipe
from xkd.protocols import Column
from xkd.report.collect import Figure, Results
from xkd.report.paper import Measure, PaperFigure, PaperResults

PAPER_NAMES = {"kinetics_sound": "kinetics-sound", "both": "audio+video"}  # what the paper's tables call ours
PROBES = {"kinetics400": "layer", "fsd50k": "layer"}  # how the paper fits a linear probe; elsewhere by an SVM
RELEASED = re.compile(r"released file [A-Z]+_pretext_([a-z0-9]+)_\S*")
TRAINED = re.compile(r"trained with xkd on (\w+): ablation \w+, seed \d+")


@dataclass(frozen=True)
class Pretraining:
    """The data that a row's encoders were pretrained on: kind of data set (None: unknown or several), and in words."""

    kind: str | None
    words: str


@dataclass(frozen=True)
class Counterpart:
    """A figure of the paper, and ours that measures the same of the same method.

    Attributes:
        column: where the table has ours.
    """

    figure: PaperFigure
    ablation: str
    column: Column
    ours: Figure


@dataclass(frozen=True)
class Counterparts:
    """Our figures beside those of the paper."""

    results: Results
    paper: PaperResults

    @cached_property
    def found(self) -> list[Counterpart]:
        """Every pair of the same method and measure, in the order of the paper's tables."""
        ours = self.measured
        return [
            Counterpart(figure, ablation, column, one)
            for figure in self.paper.figures
            for ablation, figures in ours.items()
            if self.results.params.ablations[ablation].paper == figure.method
            for column, (one, measure) in figures.items()
            if measure == figure.measure
        ]

    @cached_property
    def measured(self) -> dict[str, dict[Column, tuple[Figure, Measure]]]:
        """Per row the figures with one of the paper's protocols, and what each measures in the paper's words."""
        return {
            ablation: {
                column: (figure, measure)
                for column, figure in self.results.figures(ablation).items()
                if (measure := self._measure(ablation, figure))
            }
            for ablation in self.results.runs
        }

    def pretraining(self, ablation: str) -> Pretraining:
        """Returns what a row was pretrained on. Encoders that were given and trained further saw several data sets."""
        params, run = self.results.params, self.results.runs[ablation][0]
        training, dataset = recipe(params, ablation).training, dataset_of(params, ablation)
        if training.given:
            origins = sorted(set(run.record.metrics.given.values()))
            words = "; ".join(origins) or "given encoders of unknown origin"
            kinds = {self._kind_of(origin) for origin in origins}
            kind = kinds.pop() if len(kinds) == 1 and training.mode == "none" else None
            return Pretraining(kind, words if training.mode == "none" else f"{words}, then `{dataset}`")
        if training.mode != "pretrain":
            return Pretraining(None, f"nothing (mode {training.mode})")
        return Pretraining(params.datasets[dataset].kind, f"`{dataset}`")

    def task(self, name: str) -> str:
        """Returns the data set of a task of ours, in the paper's words."""
        kind = self.results.kind(name)
        return PAPER_NAMES.get(kind, kind)

    def _kind_of(self, origin: str) -> str | None:
        """Returns the kind of the data set that an encoder says it was trained on."""
        if released := RELEASED.fullmatch(origin):
            return released[1]
        trained = TRAINED.fullmatch(origin)
        entry = self.results.params.datasets.get(trained[1]) if trained else None
        return entry.kind if entry else None

    def _measure(self, ablation: str, figure: Figure) -> Measure | None:
        pretrained, protocol = self.pretraining(ablation).kind, paper_protocol(figure.column)
        if protocol is None or pretrained is None:
            return None
        modality = PAPER_NAMES.get(figure.column.modality, figure.column.modality)
        return Measure(pretrained, self.task(figure.task), protocol, modality, figure.metric)


def paper_protocol(column: Column) -> str | None:
    """Returns the paper's name of a protocol's main method; None for methods that the paper does not have."""
    return registry.protocols[column.method].paper if column.method in registry.protocols else None


def paper_probe(task: str) -> str:
    """Returns which of our protocols the paper's linear probe of a data set is."""
    return PROBES.get(task, "svm")
