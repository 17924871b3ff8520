"""Which figures of ours measure what a figure of the paper measures: decided by kinds of data sets, never by names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from xkd.params import recipe
from xkd.report.collect import Column, Results
from xkd.report.paper import Measure, PaperFigure, PaperResults

NAMES = {"kinetics_sound": "kinetics-sound", "both": "audio+video"}  # what the paper's tables call ours
PROTOCOLS = {"svm": "linear", "layer": "linear", "linear": "linear", "finetune": "finetune"}
PROBES = {"kinetics400": "layer", "fsd50k": "layer"}  # how the paper fits a linear probe; elsewhere by an SVM
RELEASED = re.compile(r"released file [A-Z]+_pretext_([a-z0-9]+)_\S*")
TRAINED = re.compile(r"trained with xkd on (\w+): ablation \w+, seed \d+")


@dataclass(frozen=True)
class Pretraining:
    """What the encoders of a row were pretrained on: the kind of data set (None: not known, or several) and in words."""

    kind: str | None
    words: str


@dataclass(frozen=True)
class Counterpart:
    """A figure of the paper and the column of ours that measures the same of the same method."""

    figure: PaperFigure
    ablation: str
    name: str
    column: Column


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
            Counterpart(figure, ablation, name, column)
            for figure in self.paper.figures
            for ablation, columns in ours.items()
            if self.results.params.ablations[ablation].paper == figure.method
            for name, (column, measure) in columns.items()
            if measure == figure.measure
        ]

    @cached_property
    def measured(self) -> dict[str, dict[str, tuple[Column, Measure]]]:
        """Per row the columns with one of the paper's protocols, and what each measures in the paper's words."""
        return {
            ablation: {
                name: (column, measure)
                for name, column in self.results.columns(ablation).items()
                if (measure := self._measure(ablation, column))
            }
            for ablation in self.results.runs
        }

    def pretraining(self, ablation: str) -> Pretraining:
        """Given encoders carry their origin; encoders trained on from there have seen more than one data set."""
        params, run = self.results.params, self.results.runs[ablation][0]
        training = recipe(params, ablation).training
        if training.weights:
            origins = sorted(set(run.given.values()))
            words = "; ".join(origins) or "given encoders of unknown origin"
            kinds = {self._kind_of(origin) for origin in origins}
            kind = kinds.pop() if len(kinds) == 1 and training.mode == "none" else None
            return Pretraining(kind, words if training.mode == "none" else f"{words}, then `{params.dataset}`")
        if training.mode != "pretrain":
            return Pretraining(None, f"nothing (mode {training.mode})")
        return Pretraining(params.datasets[params.dataset].kind, f"`{params.dataset}`")

    def task(self, name: str) -> str:
        """The data set of a task of ours, in the paper's words."""
        kind = self.results.kind(name)
        return NAMES.get(kind, kind)

    def _kind_of(self, origin: str) -> str | None:
        """Of the data set that an encoder says it was trained on."""
        if released := RELEASED.fullmatch(origin):
            return released[1]
        trained = TRAINED.fullmatch(origin)
        entry = self.results.params.datasets.get(trained[1]) if trained else None
        return entry.kind if entry else None

    def _measure(self, ablation: str, column: Column) -> Measure | None:
        pretrained = self.pretraining(ablation).kind
        if column.method not in PROTOCOLS or pretrained is None:
            return None
        modality = NAMES.get(column.modality, column.modality)
        return Measure(pretrained, self.task(column.task), PROTOCOLS[column.method], modality, column.metric)


def probe(task: str) -> str:
    """Which of our protocols the paper's linear probe of a data set is."""
    return PROBES.get(task, "svm")
