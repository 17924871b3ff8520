"""The tables of the report, as cells of text that Markdown and HTML share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from xkd.data.catalogue import is_own
from xkd.params import recipe
from xkd.protocols import Column, metric_title
from xkd.report.agreement import Agreement
from xkd.report.collect import Results
from xkd.report.counterparts import Counterparts
from xkd.report.csv_table import changed_settings, comparison
from xkd.report.hypotheses import Hypothesis
from xkd.report.paper import TASKS, Measure, PaperResults, mirrored
from xkd.report.statistics import Comparison
from xkd.report.verdicts import CONTRADICTED, MOST_SEEDS, Evidence

MAIN = tuple(Column("student", modality, "linear") for modality in ("video", "audio", "both"))
EMPTY = "–"


@dataclass(frozen=True)
class TextTable:
    """Header and rows of text.

    Attributes:
        foreign: titles of columns that hold the paper's figures.
        best: (row, column) of the best figure of each column among rows that are pretrained here.
    """

    header: list[str]
    rows: list[list[str]]
    foreign: set[str] = field(default_factory=set)
    best: set[tuple[int, int]] = field(default_factory=set)


def main_table(results: Results, paper: PaperResults, intervals: bool = False) -> TextTable:
    """Returns the students' columns with differences, seconds, and the paper's figures for the same ablation.

    Where rows are pretrained on other data sets than the table's, a column says on which.

    Args:
        intervals: show differences in every column, not in the main ones alone, and their intervals.
    """
    columns, foreign = results.main_columns, paper_columns(results, paper)
    pretraining = ["pretrained on"] if any(map(results.elsewhere, results.runs)) else []
    rows = []
    for name, runs in results.runs.items():
        seconds = sum(run.record.times.seconds for run in runs) / len(runs)
        cells = [_cell(results, name, column, intervals or column in MAIN, intervals) for column in columns]
        data = [runs[0].dataset for _ in pretraining]
        rows.append([name, *data, *cells, f"{seconds:.0f}", *(cells_of[name] for cells_of in foreign.values())])
    titles = [title(results, one).removeprefix("student ") for one in columns]
    header = ["ablation", *pretraining, *titles, "seconds", *foreign]
    return TextTable(header, rows, set(foreign), _best(results, columns, first=1 + len(pretraining)))


def paper_columns(results: Results, paper: PaperResults) -> dict[str, dict[str, str]]:
    """Returns columns of the paper's figures: by title, the cell of each row.

    These are the figures that measure the same as ours, each with the name of its table. Where there are none, they are
    the paper's linear probes for rows that mirror its ablations on other data; none beside the user's own data.
    """
    found: dict[str, dict[str, str]] = {}
    for one in Counterparts(results, paper).found:
        cells = found.setdefault(_paper_title(one.figure.measure), dict.fromkeys(results.runs, EMPTY))
        tables = paper.of(one.figure.method, one.figure.measure)
        cells[one.ablation] = ", ".join(f"{percent:.1f} ({table})" for table, percent in tables.items())
    kind = results.params.datasets[results.params.dataset].kind
    if found or is_own(kind) or kind in {figure.measure.pretraining for figure in paper.figures}:
        return found
    ours = {results.kind(figure.task) for runs in results.runs.values() for figure in runs[0].figures.values()}
    for task, (dataset, _) in TASKS.items():
        cells = {name: _first(paper, results.params.ablations[name].paper, task) for name in results.runs}
        found[f"PAPER, other {'pretraining' if dataset in ours else 'data'}: {task}"] = cells
    return found


def _paper_title(measure: Measure) -> str:
    return _words(
        f"PAPER, pretrained on {measure.pretraining}: {measure.task} {measure.modality} {measure.protocol}",
        metric_title(measure.metric),
    )


def _first(paper: PaperResults, method: str | None, task: str) -> str:
    """Returns the figure of the first table that holds the method."""
    figures = list(paper.of(method, mirrored(task)).values())
    return f"{figures[0]:.1f}" if figures else EMPTY


def other_table(results: Results) -> TextTable | None:
    """Returns all remaining columns (the teachers'), mean and deviation; None where there are none."""
    columns = [column for column in results.columns if column not in results.main_columns]
    rows = [[name, *(_cell(results, name, column, detailed=False) for column in columns)] for name in results.runs]
    rows = [row for row in rows if set(row[1:]) != {EMPTY}]
    return TextTable(["ablation", *(title(results, column) for column in columns)], rows) if columns else None


def questions_table(results: Results) -> TextTable:
    """Returns each row's question and what it changes."""
    rows = []
    for name, runs in results.runs.items():
        entry = results.params.ablations[name]
        parameters = f"{runs[0].record.metrics.trainable_parameters:,}"
        rows.append(
            [name, entry.hypothesis, changed_settings(entry.changes) or EMPTY, entry.paper_table or EMPTY, parameters]
        )
    return TextTable(["ablation", "hypothesis", "settings that differ", "paper's table", "trainable parameters"], rows)


def hypotheses_table(results: Results, found: list[Hypothesis]) -> TextTable:
    """Returns one line per hypothesis: what is expected, what was found, and the verdict."""
    header = ["ablation", "expected", "column", "difference", "d_z", "p, corrected", "verdict", "seeds needed"]
    rows = [
        [
            *(one.ablation, f"{one.direction} {one.than}", _column_title(results, one.column)),
            *_found(one.verdict.evidence, results.params.report.decimals),
            *(_corrected(one), _verdict(one), _seeds(one)),
        ]
        for one in found
    ]
    return TextTable(header, [[cell or EMPTY for cell in row] for row in rows])


def _found(evidence: Evidence, digits: int) -> tuple[str, str]:
    """Returns the difference with its interval, and its size in standard deviations."""
    if evidence.difference is None:
        return "", ""
    effect = "" if evidence.effect is None else f"{evidence.effect:.1f}"
    return f"{evidence.difference:+.{digits}f}{_interval(evidence, digits)}", effect


def _corrected(one: Hypothesis) -> str:
    """Returns the p-value of the test that decided, or of the test for the hypothesis."""
    p = one.verdict.p_against if one.verdict.word == CONTRADICTED else one.verdict.p
    return "" if one.verdict.evidence.reason else _p_text(p)


def _verdict(one: Hypothesis) -> str:
    word = f"{one.verdict.word}: {one.verdict.evidence.reason}" if one.verdict.evidence.reason else one.verdict.word
    return f"{word} (the settings record {one.recorded})" if one.change else word


def _seeds(one: Hypothesis) -> str:
    needed, level = one.verdict.seeds_needed, one.verdict.level
    return "" if level is None else f"{needed or f'over {MOST_SEEDS}'} (p ≤ {level:.2g})"


def _column_title(results: Results, column: Column) -> str:
    return title(results, column) if column in results.columns else str(column)


def agreement_table(results: Results, agreements: list[Agreement], same_data: bool) -> TextTable:
    """Returns the differences here and in the paper, and whether their signs agree."""
    rows = []
    for one in agreements:
        points = ", ".join(f"{dataset} {difference:+.1f}" for dataset, difference in one.paper.items())
        here = f"{one.here.difference:+.{results.params.report.decimals}f}{_p(one.here)}"
        rows.append([one.ablation, one.modality, one.reference, here, points, one.table, one.verdict])
    paper = f"PAPER{'' if same_data else ', other data'}: difference"
    header = ["ablation", "modality", "compared with", "difference here", paper, "paper's table", "verdict"]
    return TextTable(header, rows, {paper})


def _best(results: Results, columns: list[Column], first: int) -> set[tuple[int, int]]:
    """Returns the places of the highest means, ties included; `columns` are those from `first` on."""
    best = set()
    for place, column in enumerate(columns, start=first):
        means = {
            row: sum(values) / len(values)
            for row, name in enumerate(results.runs)
            if recipe(results.params, name).training.mode == "pretrain" and (values := results.values(name, column))
        }
        best |= {(row, place) for row, mean in means.items() if mean == max(means.values())}
    return best


def _cell(results: Results, ablation: str, column: Column, detailed: bool, intervals: bool = False) -> str:
    one = comparison(results, ablation, column)
    if one is None:
        return EMPTY
    digits = results.params.report.decimals
    text = f"{one.mean:.{digits}f}" + (f" ± {one.sd:.{digits}f}" if one.sd is not None else "")
    if not detailed or one.difference is None or ablation == results.params.report.baseline:
        return text
    return f"{text} ({one.difference:+.{digits}f}{_interval(one, digits) if intervals else ''})"


def _interval(one: Comparison | Evidence, digits: int) -> str:
    return " [{:+.{digits}f}, {:+.{digits}f}]".format(*one.interval, digits=digits) if one.interval else ""


def _p(one: Comparison) -> str:
    if one.p is None:
        return ""
    return f", p {_p_text(one.p)}"


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def title(results: Results, column: Column) -> str:
    """Returns what a column is called; the linear probe, which is the usual method, is not named."""
    usual = column.method == MAIN[0].method
    return _words(column.owner, column.modality, "" if usual else column.method_title, _metric(results, column))


def method_title(results: Results, column: Column) -> str:
    """Returns what a figure calls a method, such as "linear probe", with the metric where it is not top-1."""
    return _words(column.method_title, _metric(results, column))


def _metric(results: Results, column: Column) -> str:
    """Returns the title of the metric, unless the method is called the same."""
    metric = metric_title(results.metric(column))
    return "" if metric in column.method_title else metric


def _words(*words: str) -> str:
    return " ".join(word for word in words if word)


def cell(text: str) -> str:
    """Returns text for a cell of a Markdown table."""
    return plain(text).replace("|", "\\|")


def plain(text: str) -> str:
    """Returns text in one line of Markdown, in which nothing is taken for a tag."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", " ".join(text.split()))
