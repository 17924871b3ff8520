# Checkpoints are not outputs: Snakemake deletes outputs before a rerun, and an interrupted run must be able to continue.
rule pretrain:
    input:
        manifest="data/{dataset}/manifest.csv",
        shards=lambda wildcards: shards_of(wildcards.dataset),
        weights=starting_weights,
    output:
        kept(expand(f"{RUN}/{{file}}", file=RUN_FILES, allow_missing=True)),
        encoders=kept(directory(f"{RUN}/{runs.ENCODERS}")),
    log:
        "logs/{dataset}/{ablation}/seed{seed}/pretrain.txt",
    # Long jobs start first, so that the short evaluations fill the last minutes and no processor waits for one long job.
    priority: 1
    conda:
        "../../environment.yml"
    threads: lambda wildcards: row_request(wildcards).cpus
    resources:
        **requests(
            row_request,
            [pretrain_request(SETTINGS, name) for name in SETTINGS.ablations],
        ),
    params:
        code=code_of("pretrain"),
        settings=recipe_settings,
        plugins=recipe_plugins,
        run=subpath(output.encoders, parent=True),
    shell:
        "{resources.launcher} -m xkd pretrain --manifest {input.manifest:q} --ablation {wildcards.ablation:q} "
        "--seed {wildcards.seed:q} --out {params.run:q} > {log:q} 2>&1"


# `snakemake ablation_xkd` makes one row of the table: pretraining and evaluations of an ablation with all seeds, on each of its
# data sets.
for name in SETTINGS.ablations:

    rule:
        name:
            f"ablation_{name}"
        input:
            [path for row in rows_of(SETTINGS, name) for path in evaluations(row)],


# `snakemake sweep_mask_video` makes all rows of a sweep. DVC orders its stages by the file.
for name in SWEEPS:

    rule:
        name:
            f"sweep_{name}"
        input:
            [path for row in SWEEPS[name] for path in evaluations(row)],
        output:
            f"evals/{DATASET}/sweep_{name}.sha256",
        log:
            f"logs/{DATASET}/sweep_{name}.txt",
        conda:
            "../../environment.yml"
        shell:
            "sha256sum {input:q} > {output:q} 2> {log:q}"
