from pathlib import Path

from executed import note

from xkd.params import tasks_of

FIGURES = (
    *("ablations", "differences", "losses", "diagnostics", "alignment", "reconstructions", "refinement"),
    *("embeddings", "confusion", "contact-sheet"),
)


def run(params, out):
    note("table")
    (out / "figures").mkdir(parents=True, exist_ok=True)
    texts = []
    for ablation in params.ablations:
        for seed in params.seeds:
            for task in tasks_of(params, ablation):
                path = Path("evals", params.dataset, ablation, f"seed{seed}", f"{task}.json")
                texts.append(f"{ablation} {seed} {task} {path.read_text()}\n")
    for name in (
        "table.csv",
        "verdicts.csv",
        "table.md",
        "paper-comparison.md",
        "report.html",
        *(f"figures/{figure}.png" for figure in (*FIGURES, *(["sweeps"] if params.sweeps else []))),
    ):
        (out / name).write_text("".join(texts))
