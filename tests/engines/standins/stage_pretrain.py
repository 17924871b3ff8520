from executed import note

from xkd import runs
from xkd.params import canonical, recipe

FILES = ["encoders/video_student/model.safetensors", *runs.FILES, runs.INDEX]


def run(params, manifest, ablation, seed, out, resume="same"):
    note("pretrain", ablation, seed)
    for name in FILES:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(f"{seed} {canonical(recipe(params, ablation))} {manifest.read_text()}")
