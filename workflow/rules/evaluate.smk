# Where `resources.features` is set, a job with a GPU extracts features, and the evaluation finds them in the store. They are
# no output: tasks with the same views share them, and an interrupted extraction must be able to continue.
if SETTINGS.resources.features:

    rule features:
        input:
            manifest=task_manifest,
            encoders=encoders_of_run,
            index=index_of_run,
        output:
            FEATURES,
        log:
            f"logs/{DATASET}/{{ablation}}/seed{{seed}}/{{task}}.features.txt",
        benchmark:
            f"logs/{DATASET}/{{ablation}}/seed{{seed}}/{{task}}.features.benchmark.tsv"
        conda:
            "../../environment.yml"
        threads: SETTINGS.resources.features.cpus
        resources:
            **request("features"),
        params:
            code=module("xkd.downstream.job"),
            settings=feature_settings,
            plugins=task_plugins,
            run=subpath(input.encoders, parent=True),
        shell:
            "python -m xkd features --manifest {input.manifest:q} --run {params.run:q} "
            "--task {wildcards.task:q} --out {output:q} > {log:q} 2>&1"


rule evaluate:
    input:
        features=task_features,
        manifest=task_manifest,
        shards=task_shards,
        encoders=encoders_of_run,
        index=index_of_run,
    output:
        results=f"{EVALUATION}.json",
        predictions=f"{EVALUATION}.predictions.csv",
        confusion=f"{EVALUATION}.confusion.csv",
        scores=f"{EVALUATION}.scores.parquet",
        times=f"{EVALUATION}.times.json",
    log:
        f"logs/{DATASET}/{{ablation}}/seed{{seed}}/{{task}}.txt",
    conda:
        "../../environment.yml"
    threads: lambda wildcards: task_request(wildcards).cpus
    resources:
        **requests(
            task_request,
            [
                SETTINGS.resources.of_protocol(task.protocol)
                for task in SETTINGS.tasks.values()
            ],
        ),
    params:
        code=code_of("evaluate"),
        settings=task_settings,
        plugins=task_plugins,
        run=subpath(input.encoders, parent=True),
    shell:
        "{resources.launcher} -m xkd evaluate --manifest {input.manifest:q} --run {params.run:q} "
        "--task {wildcards.task:q} --out {output.results:q} > {log:q} 2>&1"
