"""The table for people, as cells of text that Markdown and HTML share."""

from __future__ import annotations

from dataclasses import dataclass, field

from xkd.params import recipe
from xkd.report.agreement import Agreement
from xkd.report.collect import Results
from xkd.report.paper import TASKS, PaperResults
from xkd.report.statistics import Comparison
from xkd.report.table import comparison, settings

MAIN = ("student.video.linear", "student.audio.linear", "student.both.linear")
PROTOCOLS = {
    "linear": "",
    "knn": " kNN",
    "svm": " SVM",
    "layer": " layer",
    "retrieval": " R@1",
    "finetune": " finetuned",
}
EMPTY = "–"


@dataclass(frozen=True)
class TextTable:
    """Header and rows of text.

    Attributes:
        foreign: titles of columns that hold the paper's figures.
        best: (row, column) of the best figure of each task among rows that are pretrained here.
    """

    header: list[str]
    rows: list[list[str]]
    foreign: set[str] = field(default_factory=set)
    best: set[tuple[int, int]] = field(default_factory=set)


def main_table(results: Results, paper: PaperResults, intervals: bool = False) -> TextTable:
    """Student tasks with differences, seconds, and the paper's figures for the same ablation beside them.

    Args:
        intervals: differences of every task, not of the main ones alone, and their intervals.
    """
    tasks = [task for task in results.tasks if task.startswith("student.")]
    titles = {task: f"PAPER, other data: {task}" for task in TASKS}
    rows = []
    for name, runs in results.runs.items():
        entry = results.params.ablations[name]
        figures = [paper.figure(entry.paper, task) for task in TASKS]
        seconds = sum(run.seconds for run in runs) / len(runs)
        cells = [_cell(results, name, task, intervals or task in MAIN, intervals) for task in tasks]
        rows.append([name, *cells, f"{seconds:.0f}", *(f"{one.percent:.1f}" if one else EMPTY for one in figures)])
    header = ["ablation", *(_title(task).removeprefix("student ") for task in tasks), "seconds", *titles.values()]
    return TextTable(header, rows, set(titles.values()), _best(results, tasks))


def other_table(results: Results) -> TextTable | None:
    """All remaining tasks (the teacher's), mean and deviation; None where there are none."""
    tasks = [task for task in results.tasks if not task.startswith("student.")]
    rows = [[name, *(_cell(results, name, task, detailed=False) for task in tasks)] for name in results.runs]
    rows = [row for row in rows if set(row[1:]) != {EMPTY}]
    return TextTable(["ablation", *map(_title, tasks)], rows) if tasks else None


def questions_table(results: Results) -> TextTable:
    """What each row asks and what it changes."""
    rows = []
    for name, runs in results.runs.items():
        entry = results.params.ablations[name]
        parameters = f"{runs[0].trainable_parameters:,}"
        rows.append([name, entry.hypothesis, settings(entry.changes) or EMPTY, entry.paper_table or EMPTY, parameters])
    return TextTable(["ablation", "hypothesis", "settings that differ", "paper's table", "trainable parameters"], rows)


def agreement_table(results: Results, agreements: list[Agreement]) -> TextTable:
    """Signs of differences here and in the paper."""
    rows = []
    for one in agreements:
        points = ", ".join(f"{dataset} {difference:+.1f}" for dataset, difference in one.paper.items())
        table = results.params.ablations[one.ablation].paper_table or EMPTY
        here = f"{one.here.difference:+.{results.params.report.decimals}f}{_p(one.here)}"
        rows.append([one.ablation, one.modality, one.reference, here, points, table, one.verdict])
    paper = "PAPER, other data: difference"
    header = ["ablation", "modality", "compared with", "difference here", paper, "paper's table", "verdict"]
    return TextTable(header, rows, {paper})


def _best(results: Results, tasks: list[str]) -> set[tuple[int, int]]:
    """Places of the highest means, ties included; `tasks` are the columns from the second on."""
    best = set()
    for column, task in enumerate(tasks, start=1):
        means = {
            row: sum(values) / len(values)
            for row, name in enumerate(results.runs)
            if recipe(results.params, name).training.mode == "pretrain" and (values := results.values(name, task))
        }
        best |= {(row, column) for row, mean in means.items() if mean == max(means.values())}
    return best


def _cell(results: Results, ablation: str, task: str, detailed: bool, intervals: bool = False) -> str:
    one = comparison(results, ablation, task)
    if one is None:
        return EMPTY
    digits = results.params.report.decimals
    text = f"{one.mean:.{digits}f}" + (f" ± {one.sd:.{digits}f}" if one.sd is not None else "")
    if not detailed or one.difference is None or ablation == results.params.report.baseline:
        return text
    interval = (
        " [{:+.{digits}f}, {:+.{digits}f}]".format(*one.interval, digits=digits) if intervals and one.interval else ""
    )
    return f"{text} ({one.difference:+.{digits}f}{interval}{_p(one)})"


def _p(one: Comparison) -> str:
    if one.p is None:
        return ""
    return ", p < 0.001" if one.p < 0.001 else f", p {one.p:.2g}" if one.p < 0.1 else f", p {one.p:.2f}"


def _title(task: str) -> str:
    owner, modality, protocol = task.split(".")
    return f"{owner} {modality}{PROTOCOLS.get(protocol, f' {protocol}')}"
