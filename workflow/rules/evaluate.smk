rule evaluate:
    input:
        manifest=task_manifest,
        encoders=f"{RUN}/{runs.ENCODERS}",
        index=f"{RUN}/{runs.INDEX}",
    output:
        results=f"{EVALUATION}.json",
        predictions=f"{EVALUATION}.predictions.csv",
        confusion=f"{EVALUATION}.confusion.csv",
        scores=f"{EVALUATION}.scores.parquet",
        times=f"{EVALUATION}.times.json",
    log:
        f"logs/{DATASET}/{{ablation}}/seed{{seed}}/{{task}}.txt",
    benchmark:
        f"logs/{DATASET}/{{ablation}}/seed{{seed}}/{{task}}.benchmark.tsv"
    conda:
        "../../environment.yml"
    threads: lambda wildcards: task_request(wildcards).cpus
    resources:
        **task_requests(),
        launcher=lambda wildcards: launcher(task_request(wildcards)),
    params:
        code=code_of("evaluate"),
        settings=task_settings,
        plugins=task_plugins,
        run=subpath(input.encoders, parent=True),
    shell:
        "{resources.launcher} -m xkd evaluate --manifest {input.manifest:q} --run {params.run:q} "
        "--task {wildcards.task:q} --out {output.results:q} > {log:q} 2>&1"
