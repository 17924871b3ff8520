"""table.md and report.html: templates filled with the tables, notes and figures."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from xkd.report import text
from xkd.report.agreement import LEVEL, TIE, agreements
from xkd.report.collect import Results
from xkd.report.dataset import DataFacts
from xkd.report.paper import CITATION, PaperResults
from xkd.settings import Params

SETTINGS = (
    *("dataset", "seeds", "clips", "logmel", "views", "model", "objective", "training"),
    *("evaluate", "tasks", "report"),
)
FIGURES = {
    "ablations": "Accuracy of the student encoders. Bar: mean; line: standard deviation over seeds; dots: seeds. Grey: yardsticks "
    "that are not pretrained.",
    "losses": "Loss terms per epoch, before their weights; mean over seeds.",
    "diagnostics": "Signs of collapse, running mean over steps and mean over seeds. A collapsed teacher has entropy near zero "
    "or stuck at its maximum; collapsed features have no spread.",
    "reconstructions": "What the encoders see, what the decoders fill in, and the truth (one frame of each clip).",
    "refinement": "Where the cross-modal attention of the teachers puts weight in the distillation targets: over the time "
    "slices of the video and over the log-mel (time to the right, low frequencies at the bottom).",
}


def context(results: Results, data: DataFacts | None) -> dict:
    """Everything that the templates show, apart from the figures."""
    paper = PaperResults()
    some = next(iter(results.runs.values()))[0]
    fill = {"params": results.params, "manifest": results.manifest, "run": some, "data": data, "citation": CITATION}
    return {
        "params": results.params,
        "data": data,
        "manifest": results.manifest,
        "main": text.main_table(results, paper),
        "questions": text.questions_table(results),
        "agreement": text.agreement_table(results, agreements(results, paper)),
        "agreement_note": _environment().get_template("agreement.j2").render(tie=TIE, level=LEVEL),
        "other": text.other_table(results),
        "notes": _environment().get_template("notes.j2").render(fill).strip().split("\n"),
    }


def markdown(shown: dict) -> str:
    """table.md."""
    return _environment().get_template("table.md.j2").render(shown)


def html(shown: dict, figures: Path) -> str:
    """report.html: one file, figures embedded, nothing loaded from elsewhere.

    Args:
        shown: of `context`.
        figures: folder of the PNG files named in `FIGURES`.
    """
    images = {name: base64.b64encode((figures / f"{name}.png").read_bytes()).decode() for name in FIGURES}
    settings = _settings(shown["params"])
    return (
        _environment().get_template("report.html.j2").render(shown, images=images, captions=FIGURES, settings=settings)
    )


def _settings(params: Params) -> str:
    """Effective base settings as YAML."""
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
    environment.filters |= {"code": _code, "stacked": _stacked}
    return environment


def _code(line: str) -> Markup:
    """Escaped HTML in which `words` in backticks are code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(line))))


def _stacked(cell: str) -> Markup:
    """Escaped HTML with what stands in brackets on a line of its own."""
    figure, bracket, rest = cell.partition(" (")
    return Markup("{}<br><small>({}</small>").format(figure, rest) if bracket else escape(figure)
