from executed import note


def run(params, manifest, run, protocol, out):
    note("evaluate", *run.parts[-2:], protocol)
    out.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".json", ".predictions.csv", ".times.json"):
        out.with_suffix(suffix).write_text(f"{protocol} {(run / 'config.json').read_text()}")
