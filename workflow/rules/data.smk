# `snakemake data/esc50/manifest.csv` prepares ESC-50; any data set in the settings works in the same way. All data come before the
# first training: what is wrong with those of evaluations shows at once, and no evaluation waits for them. Snakemake adds up the
# priorities of jobs that could start together, so theirs exceeds that of trainings on a thousand cores.
rule download:
    input:
        source,
    output:
        "data/{dataset}/raw/index.csv",
    log:
        "logs/{dataset}/download.txt",
    benchmark:
        "logs/{dataset}/download.benchmark.tsv"
    priority: 1000
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.download.cpus
    resources:
        **request("download"),
    params:
        code=code_of("download"),
        settings=raw_settings,
        plugins=dataset_plugins,
        files=lambda wildcards: own_files(wildcards.dataset),
        out=subpath(output[0], parent=True),
    shell:
        "python -m xkd download --dataset {wildcards.dataset:q} --out {params.out:q} > {log:q} 2>&1"


rule prepare:
    input:
        rules.download.output,
    output:
        "data/{dataset}/manifest.csv",
        "data/{dataset}/summary.json",
    log:
        "logs/{dataset}/prepare.txt",
    benchmark:
        "logs/{dataset}/prepare.benchmark.tsv"
    priority: 1000
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.prepare.cpus
    resources:
        **request("prepare"),
    params:
        code=code_of("prepare"),
        settings=clip_settings,
        files=lambda wildcards: own_files(wildcards.dataset),
        out=subpath(output[0], parent=True),
    shell:
        "python -m xkd prepare --raw {input:q} --out {params.out:q} > {log:q} 2>&1"


# Only runs where the settings of a data set ask for shards. Finished shards are no outputs: Snakemake deletes outputs before
# a rerun, and an interrupted call must be able to continue.
rule pack:
    input:
        rules.prepare.output,
    output:
        "data/{dataset}/shards/index.json",
        "data/{dataset}/shards/clips.npy",
    log:
        "logs/{dataset}/pack.txt",
    benchmark:
        "logs/{dataset}/pack.benchmark.tsv"
    priority: 1000
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.pack.cpus
    resources:
        **request("pack"),
    params:
        code=code_of("pack"),
        settings=shard_settings,
    shell:
        "python -m xkd pack {wildcards.dataset:q} > {log:q} 2>&1"


# DVC's stages depend on this file, which changes when any of the manifests or plugins changes.
rule manifests:
    input:
        used_manifests(),
    output:
        "data/manifests.sha256",
    log:
        "logs/manifests.txt",
    conda:
        "../../environment.yml"
    params:
        plugins=all_plugins(),
    shell:
        "{{ sha256sum {input:q} && echo {params.plugins:q}; }} > {output:q} 2> {log:q}"
