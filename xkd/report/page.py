"""table.md and report.html: templates filled with the tables, notes and figures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from xkd.collapse import EDGE
from xkd.params import recipe
from xkd.report import agreement, collapse, cross_modal, tested, text
from xkd.report.collect import Results, Run
from xkd.report.counterparts import Counterparts
from xkd.report.dataset import DataFacts
from xkd.report.hypotheses import Hypothesis, judged
from xkd.report.paper import CITATION, PaperResults
from xkd.report.previews import Previews, data_uri
from xkd.report.sweep_curves import sweep_table
from xkd.report.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED
from xkd.runs import EMBEDDINGS
from xkd.runs.records import EvaluationRecord, read_arrays
from xkd.settings import Params

SETTINGS = (
    *("dataset", "seeds", "clips", "logmel", "views", "model", "objective", "training"),
    *("evaluate", "tasks", "report"),
)
MLFLOW = "http://127.0.0.1:5000"  # where `make ui` listens
FIGURES = {
    "ablations": "Every task and modality. Bar: mean; line: standard deviation over seeds; dots: seeds. Grey and "
    "hatched: yardsticks that are not pretrained.",
    "differences": "Mean over seeds of the difference to the baseline, seed by seed, and its 95 % interval, which is "
    "not corrected for the number of rows; right of the line is better. Cross: no interval, since there is one seed or "
    "differences do not vary.",
    "paper-agreement": "Diamonds: differences between the two rows in the paper; marks and lines: ours, mean over "
    "seeds and its 95 % interval. Band: where two rows count as alike. Grey: this table lacks such rows or columns.",
    "losses": "Loss terms before their weights, mean over seeds; over steps as a running mean.",
    "diagnostics": "Running mean over steps, mean over seeds. Dotted: entropy log K and centre norm √K, where a "
    "teacher says the same of every clip.",
    "alignment": "Discrepancy between the logits of video and audio (alignment terms, before their weight): running "
    "mean over steps, mean over seeds.",
    "reconstructions": "The truth, what the encoder sees, and what the decoder fills in: one frame of each clip, and "
    "its log-mel (time to the right, low frequencies at the bottom).",
    "refinement": "Where the cross-modal attention of the teachers puts weight in the distillation targets: yellow for "
    "much, violet for little; log-mel with time to the right and low frequencies at the bottom.",
    "embeddings": "Logits of the students' projection heads for held-out clips, on the two directions in which the "
    "clips of both modalities vary most. Names stand at the median of their clips where there is room; bold: video, "
    "slanted: audio.",
    "confusion": "Held-out clips, all seeds together.",
    "contact-sheet": "Prepared clips, evenly picked: frames and log-mel.",
}


SWEEPS = {  # where the settings hold sweeps
    "sweeps": "Mean and 95 % interval over seeds, of the rows of each sweep. Ring, or “its own”: the setting that the "
    "row itself has."
}


@dataclass(frozen=True)
class Figures:
    """Drawn figures: PNG files `<name>.png` in `folder`, and their alternative texts by name."""

    folder: Path
    words: dict[str, str]


def captions(params: Params) -> dict[str, str]:
    """Returns the captions of the figures that a report of these settings has, by name."""
    return FIGURES | (SWEEPS if params.sweeps else {})


def context(results: Results, data: DataFacts | None) -> dict[str, Any]:
    """Returns what both templates show, apart from the figures."""
    paper, sweeps, results = PaperResults(), sweep_table(results), results.main
    found, main = agreement.findings(results), text.main_table(results, paper)
    same_data = bool(Counterparts(results, paper).found)
    hypotheses = judged(results)
    fill = {
        "params": results.params,
        "manifest": results.manifest,
        "data": data,
        "citation": CITATION,
        "main": main,
        "run": next(iter(results.runs.values()))[0],
        "same_data": same_data,
        "metrics": {results.metric(column) for column in results.columns},
        "methods": {column.method for column in results.columns},
        "chance": _chance(results),
        "scores": _first_scores(results),
        "elsewhere": _elsewhere(results),
        "shares": tested.shares(results),
        "remarks": tested.notes(results),
    }
    return {
        "params": results.params,
        "data": data,
        "manifest": results.manifest,
        "main": main,
        "hypotheses": text.hypotheses_table(results, hypotheses),
        "count": _count(hypotheses),
        "tests": _environment().get_template("verdicts.j2").render(count=len(hypotheses), params=results.params),
        "questions": text.questions_table(results),
        "agreement": agreement.table([one for one in found if one.ours], results.params.report.decimals),
        "agreement_note": agreement.note(results, found),
        "other": text.other_table(results),
        "sweeps": sweeps,
        "notes": [line for line in _environment().get_template("notes.j2").render(fill).split("\n") if line],
    }


def _count(hypotheses: list[Hypothesis]) -> str:
    """Returns how many hypotheses got which verdict, as a sentence."""
    if not hypotheses:
        return "The settings expect nothing (`expects` of a row), so there is nothing to judge."
    words = [one.verdict.word for one in hypotheses]
    counts = ", ".join(f"{words.count(word)} {word}" for word in (SUPPORTED, CONTRADICTED, UNDECIDED))
    return f"{len(words)} hypothes{'e' if len(words) > 1 else 'i'}s: {counts}."


def _first_scores(results: Results) -> dict[str, EvaluationRecord]:
    """Returns the first evaluation of each task."""
    runs = [run for found in reversed(results.runs.values()) for run in reversed(found)]
    return {task: scores for run in runs for task, scores in run.scores.items()}


def _chance(results: Results) -> dict[str, str]:
    """Returns what guessing scores in each task, such as "1.0 %"."""
    found: dict[str, dict[str, None]] = {}
    for column in results.columns:
        task = results.of_column(column)[0].task
        if (value := results.chance(column)) is not None:
            found.setdefault(task, {})[f"{value:.1f} %"] = None
    return {task: " and ".join(values) for task, values in found.items()}


def _elsewhere(results: Results) -> dict[str, list[Run]]:
    """Returns by data set the rows, each by its first run, that are pretrained on another one than the table's."""
    found: dict[str, list[Run]] = {}
    for run in (runs[0] for name, runs in results.runs.items() if results.elsewhere(name)):
        found.setdefault(run.dataset, []).append(run)
    return found


def markdown(shown: dict[str, Any]) -> str:
    """Returns table.md."""
    return _environment().get_template("table.md.j2").render(shown)


def html(shown: dict[str, Any], results: Results, figures: Figures, media: Previews | None) -> str:
    """Returns report.html: one file with figures, images and audio embedded; nothing is loaded from elsewhere.

    Args:
        shown: of `context`.
        results: what the figures were drawn from.
        figures: all of `captions`.
        media: images and audio of the data set's clips; None where they are not at hand.
    """
    examples, shown_figures = cross_modal.retrieved(results, media), captions(results.params)
    more = {
        "main": text.main_table(results.main, PaperResults(), intervals=True),
        "images": {
            name: data_uri("image/png", (figures.folder / f"{name}.png").read_bytes()) for name in shown_figures
        },
        "words": figures.words,
        "captions": shown_figures,
        "verdicts": collapse.verdict_table(results),
        "rules": collapse.verdict_rules(results),
        "edge": EDGE,
        "unaligned": [name for name in results.main.runs if not _aligns(results, name)],
        "examples": examples,
        "with_media": media is not None,
        "shared_space": cross_modal.shared_space_table(results),
        "chance": cross_modal.random_rates(read_arrays(examples.run.folder / EMBEDDINGS)) if examples else None,
        "settings": _settings(results.params),
        "versions": _versions(results),
        "tracked": {name: [run for run in runs if run.record.tracking.run_id] for name, runs in results.runs.items()},
        "mlflow": MLFLOW,
    }
    return _environment().get_template("report.html.j2").render(shown | more)


def _aligns(results: Results, ablation: str) -> bool:
    effective = recipe(results.params, ablation)
    return effective.training.mode == "pretrain" and effective.objective.alignment > 0


def _versions(results: Results) -> list[tuple[dict[str, str | None], list[Run]]]:
    """Returns each set of versions and the runs that it made, in the order of the settings."""
    found: list[tuple[dict[str, str | None], list[Run]]] = []
    for run in (run for runs in results.runs.values() for run in runs):
        known = next((made for versions, made in found if versions == run.record.versions.root), None)
        if known is None:
            found.append((run.record.versions.root, [run]))
        else:
            known.append(run)
    return found


def _settings(params: Params) -> str:
    """Returns the effective base settings as YAML."""
    return yaml.safe_dump(params.model_dump(mode="json", include=set(SETTINGS)), sort_keys=False)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("xkd.report"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": _code, "stacked": _stacked, "cell": text.cell, "plain": text.plain}
    return environment


def _code(line: str) -> Markup:
    """Returns escaped HTML in which `words` in backticks are code and **words** between stars are strong."""
    return Markup(
        re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(line))))
    )


def _stacked(cell: str) -> Markup:
    """Returns escaped HTML with what stands in brackets on a line of its own."""
    figure, bracket, rest = cell.partition(" (")
    return Markup("{}<br><small>{}</small>").format(figure, rest.removesuffix(")")) if bracket else escape(figure)
