"""Does an ablation move where the paper says it does? Orderings only: levels are not comparable."""

from __future__ import annotations

from dataclasses import dataclass

from xkd.report.collect import Results
from xkd.report.paper import TASKS, PaperResults
from xkd.report.statistics import Comparison
from xkd.report.table import comparison

TIE = 0.5
LEVEL = 0.05


@dataclass(frozen=True)
class Agreement:
    """One ablation and modality set against a reference row, here and in one table of the paper.

    Attributes:
        here: the student's linear probe.
        paper: differences in points per data set of the paper.
    """

    ablation: str
    modality: str
    reference: str
    here: Comparison
    paper: dict[str, float]

    @property
    def verdict(self) -> str:
        """Compares signs; a difference of at most `TIE` points in the paper counts as none."""
        expected = sum(self.paper.values()) / len(self.paper)
        shown = self.here.p is not None and self.here.p < LEVEL
        if abs(expected) <= TIE:
            return "disagrees: the paper shows no difference" if shown else "no difference shown, as in the paper"
        if not self.here.difference:
            return "no difference here"
        sign = "same" if self.here.difference * expected > 0 else "opposite"
        if shown:
            return "agrees" if sign == "same" else "disagrees: opposite sign"
        return f"{sign} sign, within noise"


def agreements(results: Results, paper: PaperResults) -> list[Agreement]:
    """All comparisons that both this table and one table of the paper can make, in the order of the settings.

    The reference is `report.baseline` where the paper's table has it, and the paper's full method otherwise (its
    tables of refinement and of variants compare with that).
    """
    names = [name for name in results.runs if name != results.params.report.baseline]
    found = [_agreement(results, paper, name, modality) for name in names for modality in ("video", "audio")]
    return [one for one in found if one]


def _agreement(results: Results, paper: PaperResults, ablation: str, modality: str) -> Agreement | None:
    methods = {name: results.params.ablations[name].paper for name in results.runs}
    for reference in (results.params.report.baseline, _full_method(methods)):
        if reference in (None, ablation):
            continue
        differences = _paper_differences(paper, methods[ablation], methods[reference], modality)
        here = comparison(results, ablation, f"student.{modality}.linear", reference)
        if differences and here and here.difference is not None:
            return Agreement(ablation, modality, reference, here, differences)
    return None


def _paper_differences(
    paper: PaperResults, method: str | None, reference: str | None, modality: str
) -> dict[str, float]:
    """Points per data set between two methods within the table that gives the first one's figure."""
    differences = {}
    for task in (task for task in TASKS if task.endswith(modality)):
        row = paper.figure(method, task)
        beside = paper.figure(reference, task, row.table) if row else None
        if row and beside:
            differences[task.split()[0]] = row.percent - beside.percent
    return differences


def _full_method(methods: dict[str, str | None]) -> str | None:
    return next((name for name, method in methods.items() if method == "xkd"), None)
