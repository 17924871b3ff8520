rule evaluate:
    input:
        manifest=MANIFEST,
        encoders=f"{RUN}/encoders",
        config=f"{RUN}/config.json",
    output:
        results=f"{EVALUATION}.json",
        predictions=f"{EVALUATION}.predictions.csv",
        times=f"{EVALUATION}.times.json",
    log:
        f"logs/{DATASET}/{{ablation}}/seed{{seed}}/{{protocol}}.txt",
    benchmark:
        f"logs/{DATASET}/{{ablation}}/seed{{seed}}/{{protocol}}.benchmark.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=3000,
    params:
        code=code_of("evaluate"),
        settings=protocol_settings,
        run=subpath(input.encoders, parent=True),
    shell:
        "python -m xkd evaluate --manifest {input.manifest} --run {params.run} "
        "--protocol {wildcards.protocol} --out {output.results} > {log} 2>&1"
