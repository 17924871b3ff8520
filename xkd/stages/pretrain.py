"""Stage `pretrain`: a manifest and one ablation's settings to encoder weights and curves."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from xkd import fingerprint, tracking
from xkd.data import manifest as manifests
from xkd.data.loader import eval_loader, train_loader
from xkd.files import write_json
from xkd.models.networks import Networks
from xkd.params import canonical
from xkd.params import recipe as recipe_of
from xkd.progress import counter, say
from xkd.settings import Params, Recipe
from xkd.training import checkpoint
from xkd.training.build import build_networks, modalities, modality_shapes, needs_teachers, trainable_parameters
from xkd.training.embeddings import held_out, save_embeddings
from xkd.training.export import encoder_config, save_encoders
from xkd.training.loop import Trainer
from xkd.training.samples import CLIPS, save_samples
from xkd.training.start import start_from
from xkd.versions import versions

LOSSES = ("loss", "reconstruction", "distillation", "alignment", "cross_entropy")
DIAGNOSTICS = ("gradient_norm", "teacher_entropy", "centre_norm", "feature_spread")
EXPERIMENT = "xkd-pretrain"
SHOWN = ("config.json", "metrics.json", "times.json", "history.csv", "steps.csv", "samples.npz", "samples.png")
VARIANTS = {"none": "XKD", "students": "XKD-MAS", "all": "XKD-MATS"}


def run(params: Params, manifest: Path, ablation: str, seed: int, out: Path) -> None:
    """Trains one ablation with one seed and writes the files of a run into `out`.

    encoders/, config.json, metrics.json, times.json, history.csv (per epoch), steps.csv (per
    step), samples.npz, samples.png, embeddings.npz, versions.json and mlflow.json. An interrupted run continues from its
    checkpoint.

    Raises:
        UserError: bad settings or data, given encoders that do not fit the settings, a loss that is not finite, or the run is being trained elsewhere.
    """
    recipe = recipe_of(params, ablation)
    data = manifests.read(manifest)
    digest = digest_of(recipe, seed, data.hash)
    folder = Path("checkpoints") / params.dataset / ablation / f"seed{seed}"
    tracked = tracking.start(
        experiment=EXPERIMENT,
        key=f"pretrain/{params.dataset}/{ablation}/seed{seed}",
        name=f"{ablation} seed {seed}",
        params={"ablation": ablation, "seed": seed, **_flat(recipe.model_dump(mode="json"))},
        tags={
            "variant": VARIANTS[recipe.model.share],
            "hypothesis": params.ablations[ablation].hypothesis,
            "manifest": data.hash,
        },
        digest=digest,
    )
    with checkpoint.exclusive(folder), tracked:
        metrics = {"dataset": params.dataset, "ablation": ablation, "seed": seed, "manifest": data.hash}
        metrics["clips"] = len(data.split("train").rows)
        _train(recipe, manifest, seed, (folder, digest), out, tracked, metrics)
        tracked.log_files([out / name for name in SHOWN])
        checkpoint.remove(folder)


def _train(recipe: Recipe, manifest: Path, seed: int, resume: tuple[Path, str], out: Path, tracked, metrics) -> None:
    networks = _starting_networks(recipe, seed)
    chosen, teachers = modalities(recipe), needs_teachers(recipe)
    # Without training a batch is never taken: a small data set is no reason to refuse.
    size = min(recipe.training.batch_size, metrics["clips"]) if recipe.training.mode == "none" else None
    loader = train_loader(recipe, manifest, seed, chosen, local_views=teachers, batch_size=size)
    trainer = Trainer(recipe, networks, loader, seed)
    if recipe.training.mode != "none":
        state = checkpoint.load(*resume)
        if state:
            trainer.load_state_dict(state)
            say(f"continuing after epoch {trainer.epoch} from {resume[0]}")
        steps = len(loader) * recipe.training.epochs
        with counter(f"{recipe.ablation} seed {seed}", steps, len(loader) * trainer.epoch) as trainer.on_step:
            for summary, rows in trainer.epochs(*resume):
                say(_line(summary))
                tracked.log_steps(rows, key="step")
    trainer.recorder.write(out)
    save_samples(trainer, _held_out(recipe, manifest, chosen), out)
    moments = {"before": _starting_networks(recipe, seed).to(trainer.device), "after": networks}
    save_embeddings(moments, held_out(recipe, manifest, chosen), trainer.device, out)
    save_encoders(networks, recipe, seed, out)
    metrics |= {
        "trainable_parameters": trainable_parameters(trainer.objective) if recipe.training.mode != "none" else 0,
        "steps": len(trainer.recorder.steps),
        "losses": trainer.recorder.last_epoch(LOSSES),
        "diagnostics": trainer.recorder.last_epoch(DIAGNOSTICS),
    }
    write_json(out / "metrics.json", metrics)
    write_json(out / "times.json", trainer.times())
    tracked.log_metrics({"trainable_parameters": metrics["trainable_parameters"], **trainer.times()})
    write_json(out / "versions.json", versions())
    write_json(out / "mlflow.json", {"run_id": tracked.id})


def _starting_networks(recipe: Recipe, seed: int) -> Networks:
    """Weights drawn from the seed, or those that the settings name."""
    networks = build_networks(recipe, seed)
    if recipe.training.weights:
        configs = {m: encoder_config(recipe, m, "student", seed) for m in modality_shapes(recipe)}
        start_from(networks, recipe.training.weights, configs)
    return networks


def digest_of(recipe: Recipe, seed: int, data: str) -> str:
    """Short hash of all that decides a run's result: settings, seed, data and code."""
    text = "\n".join((canonical(recipe), str(seed), data, fingerprint.stage("pretrain"), torch.__version__))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _held_out(recipe: Recipe, manifest: Path, chosen: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Evaluation views of the first held-out clips, by modality."""
    batch = next(iter(eval_loader(recipe, manifest, "test", CLIPS)))
    return {m: getattr(batch, m)[0] for m in chosen}


def _line(summary: dict) -> str:
    shown = ("loss", *LOSSES[1:], "gradient_norm", "data_wait_seconds", "clips_per_second")
    parts = [f"{name} {value:.4g}" for name, value in summary.items() if name.startswith(shown)]
    return f"epoch {summary['epoch']}: " + ", ".join(parts)


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
