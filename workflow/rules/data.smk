rule download:
    input:
        source(),
    output:
        f"data/{DATASET}/raw/index.csv",
    log:
        f"logs/{DATASET}/download.txt",
    benchmark:
        f"logs/{DATASET}/download.benchmark.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=4000,
    params:
        code=code_of("download"),
        settings=raw_settings(),
        dataset=DATASET,
        out=subpath(output[0], parent=True),
    shell:
        "python -m xkd download --dataset {params.dataset} --out {params.out} > {log} 2>&1"


rule prepare:
    input:
        rules.download.output,
    output:
        MANIFEST,
        f"data/{DATASET}/summary.json",
    log:
        f"logs/{DATASET}/prepare.txt",
    benchmark:
        f"logs/{DATASET}/prepare.benchmark.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=4000,
    params:
        code=code_of("prepare"),
        settings=clip_settings(),
        out=subpath(output[0], parent=True),
    shell:
        "python -m xkd prepare --raw {input} --out {params.out} > {log} 2>&1"
