"""The table for people, as cells of text that Markdown and HTML share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from xkd.data.catalogue import is_own
from xkd.params import recipe
from xkd.report.agreement import Agreement
from xkd.report.collect import Results
from xkd.report.counterparts import Counterparts
from xkd.report.paper import TASKS, Measure, PaperResults, mirrored
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
METRICS = {"top1": "", "map": " mAP", "recall1": " R@1"}
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
    tasks, foreign = results.main_tasks, paper_columns(results, paper)
    rows = []
    for name, runs in results.runs.items():
        seconds = sum(run.seconds for run in runs) / len(runs)
        cells = [_cell(results, name, task, intervals or task in MAIN, intervals) for task in tasks]
        rows.append([name, *cells, f"{seconds:.0f}", *(cells_of[name] for cells_of in foreign.values())])
    header = ["ablation", *(title(results, task).removeprefix("student ") for task in tasks), "seconds", *foreign]
    return TextTable(header, rows, set(foreign), _best(results, tasks))


def paper_columns(results: Results, paper: PaperResults) -> dict[str, dict[str, str]]:
    """Columns of the paper's figures by title, and the cell of each row.

    Where figures of ours measure what figures of the paper do, those, each with the name of its table. Otherwise the
    paper's linear probes for rows that mirror its ablations on other data; none beside the user's own data.
    """
    found: dict[str, dict[str, str]] = {}
    for one in Counterparts(results, paper).found:
        cells = found.setdefault(_paper_title(one.figure.measure), dict.fromkeys(results.runs, EMPTY))
        tables = paper.of(one.figure.method, one.figure.measure)
        cells[one.ablation] = ", ".join(f"{percent:.1f} ({table})" for table, percent in tables.items())
    kind = results.params.datasets[results.params.dataset].kind
    if found or is_own(kind) or kind in {figure.measure.pretraining for figure in paper.figures}:
        return found
    ours = {results.kind(column.task) for runs in results.runs.values() for column in runs[0].columns.values()}
    for task, (dataset, _) in TASKS.items():
        cells = {name: _first(paper, results.params.ablations[name].paper, task) for name in results.runs}
        found[f"PAPER, other {'pretraining' if dataset in ours else 'data'}: {task}"] = cells
    return found


def _paper_title(measure: Measure) -> str:
    metric = METRICS[measure.metric]
    return f"PAPER, pretrained on {measure.pretraining}: {measure.task} {measure.modality} {measure.protocol}{metric}"


def _first(paper: PaperResults, method: str | None, task: str) -> str:
    """The figure of the first table that holds the method."""
    figures = list(paper.of(method, mirrored(task)).values())
    return f"{figures[0]:.1f}" if figures else EMPTY


def other_table(results: Results) -> TextTable | None:
    """All remaining tasks (the teacher's), mean and deviation; None where there are none."""
    tasks = [task for task in results.tasks if task not in results.main_tasks]
    rows = [[name, *(_cell(results, name, task, detailed=False) for task in tasks)] for name in results.runs]
    rows = [row for row in rows if set(row[1:]) != {EMPTY}]
    return TextTable(["ablation", *(title(results, task) for task in tasks)], rows) if tasks else None


def questions_table(results: Results) -> TextTable:
    """What each row asks and what it changes."""
    rows = []
    for name, runs in results.runs.items():
        entry = results.params.ablations[name]
        parameters = f"{runs[0].trainable_parameters:,}"
        rows.append([name, entry.hypothesis, settings(entry.changes) or EMPTY, entry.paper_table or EMPTY, parameters])
    return TextTable(["ablation", "hypothesis", "settings that differ", "paper's table", "trainable parameters"], rows)


def agreement_table(results: Results, agreements: list[Agreement], same_data: bool) -> TextTable:
    """Signs of differences here and in the paper."""
    rows = []
    for one in agreements:
        points = ", ".join(f"{dataset} {difference:+.1f}" for dataset, difference in one.paper.items())
        here = f"{one.here.difference:+.{results.params.report.decimals}f}{_p(one.here)}"
        rows.append([one.ablation, one.modality, one.reference, here, points, one.table, one.verdict])
    paper = f"PAPER{'' if same_data else ', other data'}: difference"
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


def title(results: Results, task: str) -> str:
    """What a column is called, with the metric where it is not top-1."""
    owner, modality, method = task.split(".")
    return f"{owner} {modality}{titled(PROTOCOLS.get(method, f' {method}'), results.metric(task))}"


def titled(words: str, metric: str) -> str:
    """Words for a method, with the metric where it is not top-1 and not in them yet."""
    return words + ("" if METRICS[metric] in words else METRICS[metric])


def cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return plain(text).replace("|", "\\|")


def plain(text: str) -> str:
    """Text in one line of Markdown, in which nothing is taken for a tag."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(text.split()))
