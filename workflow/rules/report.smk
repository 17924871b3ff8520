rule table:
    input:
        manifest=MANIFEST,
        runs=[
            f"{run_folder(name, seed)}/{file}"
            for name in SETTINGS.ablations
            for seed in SETTINGS.seeds
            for file in RUN_FILES
        ],
        evaluations=[path for name in SETTINGS.ablations for path in evaluations(name)],
        confusions=[
            path.removesuffix("json") + "confusion.csv"
            for name in SETTINGS.ablations
            for path in evaluations(name)
        ],
    output:
        **sweep_figure(),
        csv=report(
            f"{SETTINGS.results}/table.csv",
            caption="../report/table.rst",
            category="Table",
            labels={"shows": "ablation table, CSV"},
        ),
        verdicts=report(
            f"{SETTINGS.results}/verdicts.csv",
            caption="../report/verdicts.rst",
            category="Table",
            labels={"shows": "verdicts on hypotheses, CSV"},
        ),
        markdown=f"{SETTINGS.results}/table.md",
        paper=f"{SETTINGS.results}/paper-comparison.md",
        page=report(
            f"{SETTINGS.results}/report.html",
            caption="../report/page.rst",
            category="Table",
            labels={"shows": "whole report, one page"},
        ),
        ablations=report(
            f"{SETTINGS.results}/figures/ablations.png",
            caption="../report/ablations.rst",
            category="Figures",
            labels={"shows": "accuracy, task by task"},
        ),
        differences=report(
            f"{SETTINGS.results}/figures/differences.png",
            caption="../report/differences.rst",
            category="Figures",
            labels={"shows": "differences to the baseline"},
        ),
        losses=report(
            f"{SETTINGS.results}/figures/losses.png",
            caption="../report/losses.rst",
            category="Figures",
            labels={"shows": "training curves"},
        ),
        diagnostics=report(
            f"{SETTINGS.results}/figures/diagnostics.png",
            caption="../report/diagnostics.rst",
            category="Figures",
            labels={"shows": "collapse indicators"},
        ),
        alignment=report(
            f"{SETTINGS.results}/figures/alignment.png",
            caption="../report/alignment.rst",
            category="Figures",
            labels={"shows": "discrepancy between modalities"},
        ),
        reconstructions=report(
            f"{SETTINGS.results}/figures/reconstructions.png",
            caption="../report/reconstructions.rst",
            category="Figures",
            labels={"shows": "reconstructions"},
        ),
        refinement=report(
            f"{SETTINGS.results}/figures/refinement.png",
            caption="../report/refinement.rst",
            category="Figures",
            labels={"shows": "refinement weights"},
        ),
        embeddings=report(
            f"{SETTINGS.results}/figures/embeddings.png",
            caption="../report/embeddings.rst",
            category="Figures",
            labels={"shows": "embeddings before and after"},
        ),
        confusion=report(
            f"{SETTINGS.results}/figures/confusion.png",
            caption="../report/confusion.rst",
            category="Figures",
            labels={"shows": "confusion matrices"},
        ),
        contact_sheet=report(
            f"{SETTINGS.results}/figures/contact-sheet.png",
            caption="../report/contact-sheet.rst",
            category="Figures",
            labels={"shows": "contact sheet of the data"},
        ),
    log:
        f"logs/{DATASET}/table.txt",
    benchmark:
        f"logs/{DATASET}/table.benchmark.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.table.cpus
    resources:
        **request("table"),
    params:
        code=code_of("table"),
        plugins=table_plugins(),
        settings=table_settings,
        out=subpath(output.csv, parent=True),
    shell:
        "python -m xkd table --out {params.out:q} > {log:q} 2>&1"
