from pathlib import Path

from executed import note

FIGURES = ("ablations", "losses", "diagnostics", "reconstructions", "refinement")


def run(params, out):
    note("table")
    (out / "figures").mkdir(parents=True, exist_ok=True)
    texts = []
    for ablation in params.ablations:
        finetuned = ablation in params.evaluate.finetune.ablations
        for seed in params.seeds:
            for protocol in ("linear", "finetune") if finetuned else ("linear",):
                path = Path("evals", params.dataset, ablation, f"seed{seed}", f"{protocol}.json")
                texts.append(f"{ablation} {seed} {protocol} {path.read_text()}\n")
    for name in ("table.csv", "table.md", "report.html", *(f"figures/{figure}.png" for figure in FIGURES)):
        (out / name).write_text("".join(texts))
