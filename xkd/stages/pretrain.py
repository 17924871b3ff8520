"""Stage `pretrain`: a manifest and one ablation's settings to encoder weights and curves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xkd import runs, tracking
from xkd.data import manifest as manifests
from xkd.data.loader import train_loader
from xkd.downstream.monitor import PREFIX, CollapseWatch, Probe, alarms_of, total_steps
from xkd.errors import UserError
from xkd.files import write_json
from xkd.models.networks import Networks
from xkd.params import flat
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
from xkd.training.job import PretrainJob, check_clips, shown_views
from xkd.training.loop import Trainer
from xkd.training.objective import OWN_COLUMNS
from xkd.training.peers import save_run, tried_peers, without_peers
from xkd.training.pretraining import Pretraining, pretrainer
from xkd.training.samples import save_samples
from xkd.training.start import given_encoders, start_from
from xkd.versions import versions

BROWSED_FILES = (CONFIG, METRICS, TIMES, HISTORY, STEPS, SAMPLES, PICTURE, ENCODERS)
VARIANTS = {"none": "XKD", "students": "XKD-MAS", "all": "XKD-MATS"}


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
        if recipe.training.peers.given:
            return _adopt(job, params.ablations[ablation].hypothesis, spent)
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


def _adopt(job: PretrainJob, hypothesis: str, spent: Spent) -> None:
    """Writes the run of a row whose encoders are not ours; nothing is trained."""
    chosen = modalities(job.recipe)
    check_clips(job, chosen)
    with runs.reserved(job.out, job.name) as folder, _tracked(job, hypothesis) as tracked:
        with spent.working():
            encoders = tried_peers(job.recipe, shown_views(job, job.recipe, chosen))
        with _writing(job, folder, kept=False) as out:
            shown = shown_views(job, without_peers(job.recipe), chosen)
            origins = save_run(encoders, job.recipe, job.seed, shown, out)
            columns = [asdict(column) for column in OWN_COLUMNS]
            _write_about(job, tracked, {"given": origins, "trainable_parameters": 0, "columns": columns}, out)
            write_json(out / TIMES, {"seconds": 0.0} | spent.times())
        tracked.log_files([job.out / name for name in BROWSED_FILES])


def _announce(job: PretrainJob, trainer: Trainer[Pretraining], goes_on: bool) -> None:
    if job.recipe.training.base_batch_size:
        say(job.recipe.training.learning_rate_rule)
    if goes_on:
        say(f"continuing at step {trainer.step} (epoch {trainer.epoch}) from {job.checkpoints}")


def _trainer(job: PretrainJob, group: distributed.TrainingGroup) -> Trainer[Pretraining]:
    recipe, seed = job.recipe, job.seed
    networks = _starting_networks(recipe, seed)
    chosen, teachers = modalities(recipe), recipe.has_teachers
    check_clips(job, chosen)
    # Without training a batch is never taken: a small data set is no reason to refuse.
    clips = len(job.data.split("train").rows)
    size = min(recipe.training.batch_size, clips) if recipe.training.mode == "none" else None
    loader = train_loader(
        recipe, job.manifest, seed, chosen, local_views=teachers, batch_size=size, shard=(group.rank, group.size)
    )
    return pretrainer(recipe, networks, loader, seed, group)


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
    with _writing(job, folder, kept=trainer.step > 0) as out:
        _write(job, trainer, tracked, out)
        write_json(out / TIMES, trainer.times() | spent.times())
    times = {f"run_{name}": value for name, value in trainer.times().items()}  # the plain names are those of curves
    tracked.log_metrics({"trainable_parameters": _trainable(job, trainer), **times})
    tracked.log_files([job.out / name for name in BROWSED_FILES])


@contextmanager
def _writing(job: PretrainJob, folder: runs.RunFolder, kept: bool) -> Iterator[Path]:
    """Yields a folder for the files of the run; `kept`: there is a checkpoint if they cannot be written."""
    try:
        with folder.writing() as out:
            yield out
    except OSError as error:
        left = f"the checkpoint in {job.checkpoints} is kept, and" if kept else "nothing is lost:"
        raise UserError(
            f"{error.filename or job.out}: the files of the run cannot be written ({error.strerror or error}); {left} "
            "the same command goes on with writing them once there is room"
        ) from error


def _write(job: PretrainJob, trainer: Trainer[Pretraining], tracked: tracking.TrackedRun, out: Path) -> None:
    recipe, recorder = job.recipe, trainer.recorder
    recorder.write(out, [column.name for column in OWN_COLUMNS])
    chosen = modalities(recipe)
    save_samples(trainer.learner, shown_views(job, recipe, chosen), out)
    moments = {"before": _starting_networks(recipe, job.seed).to(trainer.device), "after": trainer.learner.networks}
    save_embeddings(moments, held_out(recipe, job.manifest, chosen, job.shown_split), trainer.device, out)
    save_encoders(trainer.learner.networks, recipe, job.seed, out)
    metrics = {
        "given": {m: config.origin for m, config in given_encoders(recipe.training.weights).items()},
        "trainable_parameters": _trainable(job, trainer),
        "steps": len(recorder.steps),
        "losses": recorder.last_epoch(recorder.losses),
        "diagnostics": recorder.last_epoch(recorder.diagnostics),
        "collapse": [{"step": alarm.step, "finding": str(alarm)} for alarm in alarms_of(trainer)],
        "columns": [asdict(column) for column in trainer.learner.objective.columns],
    }
    _write_about(job, tracked, metrics, out)


def _write_about(job: PretrainJob, tracked: tracking.TrackedRun, metrics: dict[str, Any], out: Path) -> None:
    """Writes what identifies the run, and these metrics of it."""
    recipe = job.recipe
    about = {"dataset": recipe.dataset, "ablation": recipe.ablation, "seed": job.seed, "manifest": job.data.hash}
    write_json(out / METRICS, about | {"clips": len(job.data.split("train").rows)} | metrics)
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


def _line(summary: dict[str, Any], losses: tuple[str, ...]) -> str:
    shown = (*losses, "gradient_norm", "data_wait_seconds", "clips_per_second")
    parts = [f"{name} {value:.4g}" for name, value in summary.items() if name in shown]
    return f"epoch {summary['epoch']}: " + ", ".join(parts)
