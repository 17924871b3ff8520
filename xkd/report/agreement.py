"""Compares the signs of an ablation's differences with those of the paper; levels are not comparable."""

from __future__ import annotations

from dataclasses import dataclass

from xkd.data.catalogue import is_own
from xkd.protocols import Column
from xkd.report.collect import Results
from xkd.report.counterparts import Counterparts
from xkd.report.csv_table import comparison
from xkd.report.paper import TASKS, Measure, PaperResults, mirrored
from xkd.report.statistics import Comparison

TIE = 0.5
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Agreement:
    """One ablation and modality set against a reference row, here and in one table of the paper.

    Attributes:
        modality: with the task, where our data set is the paper's.
        here: the linear probe of the student, or that task.
        paper: differences in points per data set of the paper.
        table: the table of the paper that holds both rows.
    """

    ablation: str
    modality: str
    reference: str
    here: Comparison
    paper: dict[str, float]
    table: str

    @property
    def verdict(self) -> str:
        """Compares signs; a difference of at most `TIE` points in the paper counts as none."""
        expected = sum(self.paper.values()) / len(self.paper)
        shown = self.here.p is not None and self.here.p < SIGNIFICANCE
        if abs(expected) <= TIE:
            return "disagrees: the paper shows no difference" if shown else "no difference shown, as in the paper"
        if not self.here.difference:
            return "no difference here"
        sign = "same" if self.here.difference * expected > 0 else "opposite"
        if shown:
            return "agrees" if sign == "same" else "disagrees: opposite sign"
        return f"{sign} sign, within noise"


def agreements(results: Results, paper: PaperResults) -> list[Agreement]:
    """Returns all comparisons that both this table and one table of the paper can make, in the order of the settings.

    Where figures of ours measure what the paper's do, these are compared; else, unless the data are the user's own, our
    linear probes on the data of pretraining with the paper's linear probes. The reference is `report.baseline` where
    the paper's table has it, and the paper's full method otherwise (its tables of refinement and of variants compare
    with that).
    """
    names = [name for name in results.runs if name != results.params.report.baseline]
    counterparts = Counterparts(results, paper)
    if counterparts.found:
        return _same_data(counterparts, names)
    if is_own(results.params.datasets[results.params.dataset].kind):
        return []
    measures = {m: {t.split()[0]: mirrored(t) for t in TASKS if t.endswith(m)} for m in ("video", "audio")}
    found = [
        _agreement(counterparts, name, Column("student", modality, "linear"), modality, measures[modality])
        for name in names
        for modality in measures
    ]
    return [one for one in found if one]


def _same_data(counterparts: Counterparts, names: list[str]) -> list[Agreement]:
    """Compares our figures that measure what one of the paper does; teachers only where a row has no student."""
    found = []
    for name in names:
        columns = {one.column: one for one in counterparts.found if one.ablation == name}
        students = {column: one for column, one in columns.items() if column.owner == "student"}
        for column, one in (students or columns).items():
            title = f"{column.modality}, {one.ours.task}"
            found.append(_agreement(counterparts, name, column, title, {one.figure.measure.task: one.figure.measure}))
    return [one for one in found if one]


def _agreement(
    counterparts: Counterparts, ablation: str, column: Column, title: str, measures: dict[str, Measure]
) -> Agreement | None:
    results, paper = counterparts.results, counterparts.paper
    methods = {name: results.params.ablations[name].paper for name in results.runs}
    for reference in (results.params.report.baseline, _full_method(methods)):
        if reference in (None, ablation):
            continue
        told = paper.differences(methods[ablation], methods[reference], measures)
        here = comparison(results, ablation, column, reference)
        comparable = _comparable(counterparts, ablation, reference)
        if told and comparable and here and here.difference is not None:
            return Agreement(ablation, title, reference, here, told[1], told[0])
    return None


def _comparable(counterparts: Counterparts, ablation: str, reference: str) -> bool:
    """Returns whether two rows were pretrained on the same data, as two rows of a table of the paper are."""
    one, other = (counterparts.pretraining(name) for name in (ablation, reference))
    return one == other or (one.kind is not None and one.kind == other.kind)


def _full_method(methods: dict[str, str | None]) -> str | None:
    return next((name for name, method in methods.items() if method == "xkd"), None)
