from executed import note


def run(params, manifest, run, task, out, force=False, resume="same"):
    note("evaluate", *run.parts[-2:], task)
    out.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".json", ".predictions.csv", ".confusion.csv", ".scores.parquet", ".times.json"):
        out.with_suffix(suffix).write_text(f"{task} {manifest.read_text()} {(run / 'config.json').read_text()}")
