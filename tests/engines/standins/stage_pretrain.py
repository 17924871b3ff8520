from executed import note

from xkd.params import canonical, recipe

FILES = [
    "encoders/video_student/model.safetensors",
    "config.json",
    "metrics.json",
    "times.json",
    "history.csv",
    "steps.csv",
    "samples.npz",
    "embeddings.npz",
    "versions.json",
    "mlflow.json",
]


def run(params, manifest, ablation, seed, out):
    note("pretrain", ablation, seed)
    for name in FILES:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(f"{seed} {canonical(recipe(params, ablation))} {manifest.read_text()}")
