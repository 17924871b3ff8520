"""results/paper-comparison.md: every figure of the paper, and ours for the same task where there is one."""

from __future__ import annotations

import pandas as pd

from xkd.params import column, tasks_of
from xkd.report.collect import Results
from xkd.report.paper import CITATION, PaperResults
from xkd.report.statistics import compare

KINDS = {"kinetics-sound": "kinetics_sound"}  # data sets whose name in the paper's tables is not their kind here
MODALITIES = {"audio+video": "both"}
METHODS = {
    "linear": ("svm", "layer", "linear"),
    "finetune": ("finetune",),
}  # the paper's linear probe is one of three here
VARIANTS = {"xkd": "XKD", "xkd_mas": "XKD-MAS", "xkd_mats": "XKD-MATS"}
OWNERS = ("student", "teacher")
EMPTY = "–"


def comparison(results: Results) -> str:
    """The whole page as Markdown."""
    header = [
        "task",
        "protocol",
        "modality",
        "metric",
        "paper pretrained on",
        *(f"paper {v}" for v in VARIANTS.values()),
    ]
    header += ["paper, best other", "here"]
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    keys = ["task", "protocol", "modality", "metric", "pretraining"]
    for values, rows in PaperResults().all_rows.groupby(keys, sort=True):
        key = [str(value) for value in values]
        cells = [*key, *(_paper(rows, method) for method in VARIANTS), _best_other(rows), _here(results, *key[:3])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"# Beside the paper: `{results.params.dataset}`", "", _differences(results), "", *lines, ""])


def _differences(results: Results) -> str:
    params = results.params
    some = next(iter(results.runs.values()))[0]
    model, training = params.model, params.training
    clips = f", {some.clips.train} training clips" if some.items else ""
    return (
        f"Paper: {CITATION}; ViT-B (768 wide, 12 deep), 800 epochs of Kinetics400 or AudioSet. Here: {model.width} wide, "
        f"{model.depth} deep, {training.epochs} epochs of `{params.dataset}` (manifest `{results.manifest}`"
        f"{clips}). Mean ± standard deviation over n seeds. A cell that is empty says why."
    )


def _paper(rows: pd.DataFrame, method: str) -> str:
    found = rows.loc[rows["method"] == method, "percent"]
    return f"{found.iloc[0]:.1f}" if len(found) else EMPTY


def _best_other(rows: pd.DataFrame) -> str:
    """Of the works that the paper compares with; its own ablations are not among them."""
    others = rows[rows["table"].isin(("video", "audio", "audio-video")) & ~rows["method"].isin(VARIANTS)]
    if others.empty:
        return EMPTY
    best = others.iloc[others["percent"].argmax()]
    return f"{best['percent']:.1f} ({best['method']})"


def _here(results: Results, dataset: str, protocol: str, modality: str) -> str:
    """Our figures, or why there are none."""
    params, kind = results.params, KINDS.get(dataset, dataset)
    tasks = {
        name: task
        for name, task in params.tasks.items()
        if params.datasets[task.dataset or params.dataset].kind == kind and task.protocol in METHODS[protocol]
    }
    if not tasks:
        return f"no task of data set `{kind}` with protocol {' or '.join(METHODS[protocol])} in the settings"
    rows = [name for name, ablation in params.ablations.items() if ablation.paper in VARIANTS]
    found = [
        f"{ablation}: {_figures(results, ablation, name, task.protocol, MODALITIES.get(modality, modality))}"
        for ablation in rows
        for name, task in tasks.items()
        if name in tasks_of(params, ablation)
    ]
    return "; ".join(found) or f"no row for {', '.join(VARIANTS.values())} has the task {', '.join(tasks)}"


def _figures(results: Results, ablation: str, task: str, protocol: str, modality: str) -> str:
    figures = []
    for owner in OWNERS:
        values = results.values(ablation, column(task, protocol, f"{owner}.{modality}.{protocol}"))
        if values:
            one = compare(values, None)
            spread = f" ± {one.sd:.1f}" if one.sd is not None else ""
            figures.append(f"{owner} {one.mean:.1f}{spread} (n {len(values)})")
    return ", ".join(figures) or f"no {modality} in {task}"
