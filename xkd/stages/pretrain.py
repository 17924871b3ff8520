"""Stage `pretrain`: a manifest and one ablation's settings to encoder weights and curves."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from xkd import fingerprint, plugins, runs, tracking
from xkd.data import manifest as manifests
from xkd.data.loader import eval_loader, train_loader
from xkd.downstream.monitor import PREFIX, CollapseWatch, Probe, alarms_of, total_steps
from xkd.errors import UserError
from xkd.files import read_json, write_json
from xkd.models.networks import Networks
from xkd.params import canonical, decisive, flat
from xkd.params import recipe as recipe_of
from xkd.progress import counter, say
from xkd.recipe import Recipe
from xkd.runs import CONFIG, ENCODERS, HISTORY, METRICS, PICTURE, SAMPLES, STEPS, TIMES, TRACKING, VERSIONS
from xkd.settings import Params
from xkd.spent import Spent
from xkd.training import checkpoint, distributed
from xkd.training.build import build_networks, modalities, modality_shapes, trainable_parameters
from xkd.training.embeddings import held_out, save_embeddings
from xkd.training.export import encoder_config, save_encoders
from xkd.training.loop import Trainer
from xkd.training.objective import OWN_COLUMNS
from xkd.training.pretraining import Pretraining, pretrainer
from xkd.training.samples import SAMPLE_CLIPS, save_samples
from xkd.training.start import given_encoders, start_from
from xkd.versions import versions

BROWSED_FILES = (CONFIG, METRICS, TIMES, HISTORY, STEPS, SAMPLES, PICTURE, ENCODERS)
VARIANTS = {"none": "XKD", "students": "XKD-MAS", "all": "XKD-MATS"}


@dataclass(frozen=True)
class PretrainJob:
    """A run: its settings, data and seed, and where it keeps its files."""

    recipe: Recipe
    manifest: Path
    data: manifests.Manifest
    seed: int
    out: Path

    @property
    def name(self) -> str:
        return runs.name_of(self.recipe.dataset, self.recipe.ablation, self.seed)

    @property
    def checkpoints(self) -> Path:
        return runs.CHECKPOINTS / self.name

    @property
    def shown_split(self) -> str:
        """The clips that figures show: held-out ones, or training clips of a data set that is only pretrained on."""
        return "train" if self.data.split("test").rows.empty else "test"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that decides the result: settings, seed, data and code, that of the plugins in use too."""
        code = {"code": fingerprint.stage("pretrain"), "torch": str(torch.__version__)}
        code |= {f"plugin {name}": value for name, value in plugins.code(self.recipe.plugins).items()}
        return {**flat(decisive(self.recipe)), "seed": self.seed, "data": self.data.hash, **code}

    @property
    def digest(self) -> str:
        """Short hash of `identity`."""
        return hashlib.sha256(canonical(self.identity).encode()).hexdigest()[:16]


def run(params: Params, manifest: Path, ablation: str, seed: int, out: Path, resume: str = "same") -> None:
    """Trains one ablation with one seed and writes the files of a run into `out`.

    encoders/, config.json, metrics.json, times.json, history.csv (per epoch), steps.csv (per
    step), samples.npz, samples.png, embeddings.npz, versions.json, mlflow.json and files.json, which lists them with
    their hashes. They appear together at the end. An interrupted run continues from its checkpoint. Under `torchrun`,
    each process trains on its share of every batch, and the first one writes.

    Args:
        resume: what to do with a checkpoint of other settings, data or code: see `checkpoint.unfinished`.

    Raises:
        UserError: bad settings or data, given encoders that do not fit the settings, a checkpoint of another run or one
            that cannot be read or written, a loss that is not finite, the run is being trained elsewhere, or `out`
            holds something else.
        SystemExit, KeyboardInterrupt: SIGTERM or SIGINT came; the run is saved up to that step.
    """
    recipe, spent = recipe_of(params, ablation), Spent()
    with distributed.joined() as group, ExitStack() as stack:
        if recipe.training.mode == "none":  # nothing to share
            if not group.first:
                return
            group = group.alone()
        with group.together():
            job = PretrainJob(recipe, manifest, manifests.read_manifest(manifest), seed, out)
            if group.first:
                stack.enter_context(checkpoint.exclusive(job.checkpoints))
        state, folder = checkpoint.shared(job.checkpoints, job.identity, resume, group), None
        with group.together():
            trainer = _trainer(job, group)
            if state:
                trainer.load_state_dict(state)
            if group.first:
                folder = stack.enter_context(runs.reserved(out, job.name))
        tracked = stack.enter_context(_tracked(job, params.ablations[ablation].hypothesis)) if group.first else None
        if group.first:
            _announce(job, trainer, goes_on=state is not None)
        del state
        with spent.working():
            _train(job, trainer, tracked)
        if tracked and folder:
            _finish(job, trainer, tracked, folder, spent)
            checkpoint.remove(job.checkpoints)


def _announce(job: PretrainJob, trainer: Trainer[Pretraining], goes_on: bool) -> None:
    if job.recipe.training.base_batch_size:
        say(job.recipe.training.learning_rate_rule)
    if goes_on:
        say(f"continuing at step {trainer.step} (epoch {trainer.epoch}) from {job.checkpoints}")


def _trainer(job: PretrainJob, group: distributed.TrainingGroup) -> Trainer[Pretraining]:
    recipe, seed = job.recipe, job.seed
    networks = _starting_networks(recipe, seed)
    chosen, teachers = modalities(recipe), recipe.has_teachers
    _check_clips(job, chosen)
    # Without training a batch is never taken: a small data set is no reason to refuse.
    clips = len(job.data.split("train").rows)
    size = min(recipe.training.batch_size, clips) if recipe.training.mode == "none" else None
    loader = train_loader(
        recipe, job.manifest, seed, chosen, local_views=teachers, batch_size=size, shard=(group.rank, group.size)
    )
    return pretrainer(recipe, networks, loader, seed, group)


def _check_clips(job: PretrainJob, chosen: tuple[str, ...]) -> None:
    """Refuses data before training that would fail in it, or after it, where held-out clips are looked at."""
    _check_dataset(job)
    for split in ("train", job.shown_split):
        rows = job.data.split(split).rows
        if rows.empty:
            raise UserError(f"{job.manifest}: no usable clip in split '{split}'; look at the reasons in summary.json")
        for modality in chosen:
            lacking = rows["id"][~rows[f"has_{modality}"]]
            if len(lacking):
                raise UserError(
                    f"{job.manifest}: {len(lacking)} of {len(rows)} {split} clips have no {modality}, e.g. "
                    f"{lacking.iloc[0]}, and row {job.recipe.ablation} trains {' and '.join(chosen)}; set "
                    f"datasets.{job.recipe.dataset}.require to leave such clips out, or give the row one modality "
                    "(objective.reconstruct without distillation and alignment)"
                )


def _check_dataset(job: PretrainJob) -> None:
    """Refuses the clips of another data set than the row's, and edited lists, as far as `prepare` tells."""
    manifests.check_as_prepared(job.manifest, job.data.hash)
    row, wanted = job.recipe.ablation, job.recipe.dataset
    try:
        found = read_json(job.manifest.with_name("summary.json"))["dataset"]
    except (OSError, ValueError, KeyError):
        return
    if found != wanted:
        raise UserError(
            f"{job.manifest}: clips of '{found}', but row {row} is pretrained on '{wanted}'; name the manifest of that "
            f"data set, or set ablations.{row}.dataset"
        )


def _tracked(job: PretrainJob, hypothesis: str) -> tracking.TrackedRun:
    recipe = job.recipe
    return tracking.start(
        experiment=tracking.PRETRAINING,
        key=f"pretrain/{job.name}",
        name=f"{recipe.ablation} seed {job.seed}",
        params={"ablation": recipe.ablation, "seed": job.seed, **flat(recipe.model_dump(mode="json"))},
        tags={"variant": VARIANTS[recipe.model.share], "hypothesis": hypothesis, "manifest": job.data.hash},
        digest=job.digest,
    )


def _train(job: PretrainJob, trainer: Trainer[Pretraining], tracked: tracking.TrackedRun | None) -> None:
    """Trains in every process; the first one shows and logs what comes of it."""
    if job.recipe.training.mode == "none":
        return
    settings = job.recipe.model_dump(mode="json")
    epochs = trainer.epochs(lambda state: checkpoint.keep(job.checkpoints, job.identity, settings, state))
    if tracked is None:
        for _ in epochs:
            pass
        return
    skipped, watch = trainer.faults.skipped, CollapseWatch(trainer)
    trainer.on_epoch = Probe(trainer, job.data, job.seed, job.checkpoints)
    with counter(f"{job.recipe.ablation} seed {job.seed}", total_steps(trainer), trainer.step) as advance:

        def on_step(count: int) -> None:
            advance(count)
            tracked.log_metrics(watch.look())

        trainer.on_step = on_step
        for summary, rows in epochs:
            say(_line(summary, trainer.recorder.losses))
            if trainer.faults.skipped > skipped:
                say(f"epoch {summary['epoch']}: {trainer.faults.skipped - skipped} of {len(rows)} steps were skipped")
                skipped = trainer.faults.skipped
            judged = {name: value for name, value in summary.items() if name.startswith(PREFIX)}
            tracked.log_steps([*rows[:-1], *(row | judged for row in rows[-1:])], key="step")


def _finish(
    job: PretrainJob, trainer: Trainer[Pretraining], tracked: tracking.TrackedRun, folder: runs.RunFolder, spent: Spent
) -> None:
    try:
        with folder.writing() as out:
            _write(job, trainer, tracked, out)
            write_json(out / TIMES, trainer.times() | spent.times())
    except OSError as error:
        kept = f"the checkpoint in {job.checkpoints} is kept, and" if trainer.step else "nothing is lost:"
        raise UserError(
            f"{error.filename or job.out}: the files of the run cannot be written ({error.strerror or error}); {kept} "
            "the same command goes on with writing them once there is room"
        ) from error
    times = {f"run_{name}": value for name, value in trainer.times().items()}  # the plain names are those of curves
    tracked.log_metrics({"trainable_parameters": _trainable(job, trainer), **times})
    tracked.log_files([job.out / name for name in BROWSED_FILES])


def _write(job: PretrainJob, trainer: Trainer[Pretraining], tracked: tracking.TrackedRun, out: Path) -> None:
    recipe, recorder = job.recipe, trainer.recorder
    recorder.write(out, [column.name for column in OWN_COLUMNS])
    chosen = modalities(recipe)
    save_samples(trainer.learner, _shown_views(job, chosen), out)
    moments = {"before": _starting_networks(recipe, job.seed).to(trainer.device), "after": trainer.learner.networks}
    save_embeddings(moments, held_out(recipe, job.manifest, chosen, job.shown_split), trainer.device, out)
    save_encoders(trainer.learner.networks, recipe, job.seed, out)
    metrics = {"dataset": recipe.dataset, "ablation": recipe.ablation, "seed": job.seed, "manifest": job.data.hash}
    metrics |= {
        "clips": len(job.data.split("train").rows),
        "given": {m: config.origin for m, config in given_encoders(recipe.training.weights).items()},
        "trainable_parameters": _trainable(job, trainer),
        "steps": len(recorder.steps),
        "losses": recorder.last_epoch(recorder.losses),
        "diagnostics": recorder.last_epoch(recorder.diagnostics),
        "collapse": [{"step": alarm.step, "finding": str(alarm)} for alarm in alarms_of(trainer)],
        "columns": [asdict(column) for column in trainer.learner.objective.columns],
    }
    write_json(out / METRICS, metrics)
    write_json(out / VERSIONS, versions())
    write_json(out / TRACKING, {"run_id": tracked.id, "experiment_id": tracked.experiment_id})


def _trainable(job: PretrainJob, trainer: Trainer[Pretraining]) -> int:
    return trainable_parameters(trainer.learner.objective) if job.recipe.training.mode != "none" else 0


def _starting_networks(recipe: Recipe, seed: int) -> Networks:
    """Returns networks with weights drawn from the seed, or with those that the settings name."""
    networks = build_networks(recipe, seed)
    if recipe.training.weights:
        configs = {m: encoder_config(recipe, m, "student", seed) for m in modality_shapes(recipe)}
        start_from(networks, recipe.training.weights, configs)
    return networks


def _shown_views(job: PretrainJob, chosen: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Returns evaluation views of the first clips that figures show, by modality."""
    batch = next(iter(eval_loader(job.recipe, job.manifest, job.shown_split, SAMPLE_CLIPS, chosen)))
    return {m: batch.views[m][0] for m in chosen}


def _line(summary: dict[str, Any], losses: tuple[str, ...]) -> str:
    shown = (*losses, "gradient_norm", "data_wait_seconds", "clips_per_second")
    parts = [f"{name} {value:.4g}" for name, value in summary.items() if name in shown]
    return f"epoch {summary['epoch']}: " + ", ".join(parts)
