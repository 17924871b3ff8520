"""Does an ablation move where the paper says it does? Orderings only: levels are not comparable."""

from __future__ import annotations

from dataclasses import dataclass

from xkd.report.collect import Results
from xkd.report.paper import TASKS, PaperFigure, PaperResults
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
    table: str
    paper: dict[str, float]

    @property
    def verdict(self) -> str:
        """Compares signs; a difference of at most `TIE` points in the paper counts as none."""
        expected = sum(self.paper.values()) / len(self.paper)
        shown = self.here.p is not None and self.here.p < LEVEL
        if abs(expected) <= TIE:
            return "disagrees: the paper shows no difference" if shown else "agrees: no difference shown"
        same = self.here.difference * expected > 0
        if shown:
            return "agrees" if same else "disagrees: opposite sign"
        return f"{'same' if same else 'opposite'} sign, within noise"


def agreements(results: Results, paper: PaperResults) -> list[Agreement]:
    """All comparisons that both this table and one table of the paper can make, in the order of the settings.

    The reference is `report.baseline` where the paper's table has it, and the paper's full method otherwise (its
    tables of refinement and of variants compare with that).
    """
    found = [_agreement(results, paper, name, modality) for name in results.runs for modality in ("video", "audio")]
    return [one for one in found if one]


def _agreement(results: Results, paper: PaperResults, ablation: str, modality: str) -> Agreement | None:
    tasks = [task for task in TASKS if task.endswith(modality)]
    row = _figures(results, paper, ablation, tasks)
    for reference in (results.params.report.baseline, _full_method(results)):
        if not row or reference in (None, ablation):
            continue
        beside = {task: paper.figure(results.params.ablations[reference].paper, row[task].table, task) for task in row}
        differences = {
            task.split()[0]: row[task].percent - other.percent
            for task, other in beside.items()
            if other and other.table == row[task].table
        }
        here = comparison(results, ablation, f"student.{modality}.linear", reference)
        if differences and here and here.difference is not None:
            table = next(iter(row.values())).table
            return Agreement(ablation, modality, reference, here, table, differences)
    return None


def _figures(results: Results, paper: PaperResults, ablation: str, tasks: list[str]) -> dict[str, PaperFigure]:
    entry = results.params.ablations[ablation]
    figures = {task: paper.figure(entry.paper, entry.paper_table, task) for task in tasks}
    return {task: figure for task, figure in figures.items() if figure}


def _full_method(results: Results) -> str | None:
    return next((name for name in results.runs if results.params.ablations[name].paper == "xkd"), None)
