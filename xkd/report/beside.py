"""results/paper-comparison.md: every figure of the paper, table by table, and ours that measures the same."""

from __future__ import annotations

from xkd import registry
from xkd.params import dataset_of
from xkd.protocols import Column
from xkd.report.collect import Figure, Results
from xkd.report.counterparts import Counterpart, Counterparts, paper_probe, paper_protocol
from xkd.report.paper import CITATION, PaperFigure, PaperResults
from xkd.report.statistics import compare
from xkd.report.tested import deviations, share, verdict
from xkd.report.text import EMPTY, cell

TABLES = {
    "ablation-losses": "ablation of the losses",
    "ablation-refinement": "ablation of the refinement",
    "video": "comparison with other work, video",
    "audio": "comparison with other work, audio",
    "audio-video": "comparison with other work, both modalities",
}
HEADER = ("method", "pretrained on", "data set", "protocol", "modality", "metric", "paper")
OUR_HEADER = ("here", "test clips", "what differs here")


def paper_page(results: Results) -> str:
    """Returns the whole page as Markdown."""
    paper = PaperResults()
    counterparts = Counterparts(results, paper)
    lines = [f"# Beside the paper: `{results.params.dataset}`", "", _introduction(results), ""]
    for name in paper.tables:
        lines += [f"## Table `{name}` of the paper: {TABLES[name]}", "", *_section(counterparts, name), ""]
    return "\n".join(lines + _elsewhere(counterparts))


def _introduction(results: Results) -> str:
    params = results.params
    model, training = params.model, params.training
    count = next(iter(results.runs.values()))[0].record.metrics.clips
    clips = f", {count:,} training clips" if count is not None else ""
    return (
        f"Paper: {CITATION}; ViT-B (768 wide, 12 deep), 800 epochs of Kinetics400 or AudioSet. Here: {model.width} "
        f"wide, {model.depth} deep, {training.epochs} epochs of `{params.dataset}` (manifest "
        f"`{results.manifest}`{clips}), unless a row says otherwise.\n\nThe paper gives some figures of one method in "
        "several tables, with other settings. A figure of ours stands only beside a figure of the same method, "
        "pretraining set, data set, protocol, modality and metric, as mean ± standard deviation over n seeds. Tables "
        "are called as in `xkd/report/paper_results.csv`."
    )


def _section(counterparts: Counterparts, table: str) -> list[str]:
    """Returns one table of the paper, with columns of ours where we have a figure for it."""
    figures = [figure for figure in counterparts.paper.figures if figure.table == table]
    beside = [(figure, [one for one in counterparts.found if one.figure is figure]) for figure in figures]
    if not any(ours for _, ours in beside):
        return [f"No figure of ours measures what one of these does: {_why_none(counterparts, figures)}.", ""] + _table(
            HEADER, [_paper(figure) for figure in figures]
        )
    return _table(
        (*HEADER, *OUR_HEADER), [[*_paper(figure), *_here(counterparts, figure, ours)] for figure, ours in beside]
    )


def _table(header: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _paper(figure: PaperFigure) -> list[str]:
    one = figure.measure
    return [
        *(figure.method, one.pretraining, one.task, one.protocol, one.modality, one.metric),
        f"{figure.percent:.1f}",
    ]


def _here(counterparts: Counterparts, figure: PaperFigure, ours: list[Counterpart]) -> list[str]:
    """Returns cells of our figures, one a line: the figure, what it was tested on, and what else is not the paper's."""
    results = counterparts.results
    if not ours:
        return [_why_none(counterparts, [figure]), EMPTY, EMPTY]
    cells = [
        (
            f"`{one.ablation}`, `{one.ours.task}`, {one.column.owner}: {_mean(results, one.ablation, one.column)}",
            share(results.runs[one.ablation][0].scores[one.ours.task].clips, "test"),
            "; ".join(_differences(results, one)) or EMPTY,
        )
        for one in ours
    ]
    return ["<br>".join(parts) for parts in zip(*cells, strict=True)]


def _mean(results: Results, ablation: str, column: Column) -> str:
    values = results.values(ablation, column) or []
    one, digits = compare(values, None), results.params.report.decimals
    return f"{one.mean:.{digits}f}{f' ± {one.sd:.{digits}f}' if one.sd is not None else ''} (n {len(values)})"


def _differences(results: Results, one: Counterpart) -> list[str]:
    params, task = results.params, one.ours.task
    usual, found = paper_probe(one.figure.measure.task), []
    if one.figure.measure.protocol == "linear" and one.ours.column.method != usual:
        found.append(f"protocol {one.ours.column.method}, in the paper {usual}")
    if clips := deviations(results, one.ablation, task):
        found.append(f"**{verdict(results, task)}**: {'; '.join(clips)}")
    pretraining = params.datasets[dataset_of(params, one.ablation)]
    if pretraining.limit and not results.runs[one.ablation][0].record.metrics.given:
        found.append(f"pretrained on at most {pretraining.limit} clips of each class (limit)")
    return found


def _why_none(counterparts: Counterparts, figures: list[PaperFigure]) -> str:
    """Says why no figure of ours stands beside any of these; a dash for methods that are not rows here."""
    params = counterparts.results.params
    rows = [name for name in counterparts.results.runs if params.ablations[name].paper in {f.method for f in figures}]
    if not rows:
        return EMPTY if len(figures) == 1 else "no row names one of these methods as `paper`"
    wanted = {figure.measure.pretraining for figure in figures}
    there = {name: counterparts.pretraining(name) for name in rows}
    rows = [name for name in rows if there[name].kind in wanted]
    if not rows:
        return f"pretrained here on {cell(', '.join(sorted({one.words for one in there.values()})))}"
    if len(figures) > 1:
        return "no task with these protocols on these data sets"
    one = figures[0].measure
    protocols = " or ".join(name for name in registry.protocols if registry.protocols[name].paper == one.protocol)
    return f"no {one.metric} of {one.modality} on {one.task} by {protocols}"


def _elsewhere(counterparts: Counterparts) -> list[str]:
    """Returns our figures on the paper's data sets after another pretraining: only their orderings can be compared."""
    results = counterparts.results
    sets = {figure.measure.task for figure in counterparts.paper.figures}
    placed = {(one.ablation, one.column) for one in counterparts.found}
    rows = [
        [
            f"`{ablation}`",
            cell(counterparts.pretraining(ablation).words),
            *_elsewhere_cells(results, ablation, column, one),
        ]
        for ablation in results.runs
        for column, one in results.figures(ablation).items()
        if (ablation, column) not in placed and counterparts.task(one.task) in sets and paper_protocol(one.column)
    ]
    if not rows:
        return []
    header = ("row", "pretrained on", "task", "encoder", "modality", "metric", *OUR_HEADER)
    return [
        "## Our other figures on data sets of the paper",
        "",
        "No figure of the paper measures the same. Compare orderings of rows, not levels, with those of the tables "
        "above.",
        "",
        *_table(header, rows),
        "",
    ]


def _elsewhere_cells(results: Results, ablation: str, column: Column, one: Figure) -> list[str]:
    return [
        *(f"`{one.task}`", column.owner, column.modality, one.metric, _mean(results, ablation, column)),
        share(results.runs[ablation][0].scores[one.task].clips, "test"),
        "; ".join(deviations(results, ablation, one.task)) or EMPTY,
    ]
