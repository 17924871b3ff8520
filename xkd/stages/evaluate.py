"""Stage `evaluate`: judges the encoders of one run on held-out clips, by one task."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from xkd import registry, runs, tracking
from xkd.data import manifest as manifests
from xkd.downstream import attentive as _attentive  # noqa: F401  these modules attach what our own protocols run
from xkd.downstream import few_shot as _few_shot  # noqa: F401
from xkd.downstream import finetune as _finetune  # noqa: F401
from xkd.downstream import layer as _layer  # noqa: F401
from xkd.downstream import linear as _linear  # noqa: F401
from xkd.downstream import search as _search  # noqa: F401
from xkd.downstream.features import Key
from xkd.downstream.job import EvaluationJob
from xkd.downstream.metrics import confusion
from xkd.downstream.results import JUDGED_SPLITS, results_of
from xkd.downstream.score_file import write_scores
from xkd.downstream.scores import Judged
from xkd.encoders.peers import describe
from xkd.errors import UserError
from xkd.files import files_in, read_json, write_json
from xkd.params import canonical, check_peers, with_views
from xkd.params import protocol as params_of_protocol
from xkd.protocols import headline_metrics
from xkd.recipe import Recipe
from xkd.runs import evaluations, records
from xkd.settings import FrozenSettings, Params, Task
from xkd.spent import Spent
from xkd.training import checkpoint, distributed
from xkd.training.export import load_encoders, load_heads, load_peers, load_recipe, weights_files


def run(
    params: Params, manifest: Path, run: Path, task: str, out: Path, force: bool = False, resume: str = "same"
) -> None:
    """Evaluates a run and writes `out`.

    Beside it go `<task>.predictions.csv`, `.confusion.csv`, `.scores.parquet` and `.times.json`. An interrupted
    finetuning goes on from its checkpoint. Under `torchrun`, the processes share it, and the first one writes; other
    protocols are run by the first process alone.

    Args:
        params: settings; groups `evaluate` and `tasks` are used. How clips are seen is the run's own recipe.
        manifest: labelled clips with the splits train and test, or official folds; may be of another data set than the
            run's.
        run: folder that `pretrain` wrote.
        task: entry of `tasks` in the settings.
        out: the JSON file of results. Over several folds, metrics are means, with standard deviations beside them.
        force: files of these names may be replaced; earlier results of the same run and task are in any case.
        resume: what to do with a checkpoint of other settings, data or code, see `xkd.training.checkpoint.unfinished`.

    Raises:
        UserError: no such run, task or fold, clips prepared with other settings than the run's, no labels, an empty
            split, a clip that cannot be read, or a checkpoint of other settings. Earlier results stay as they are.
        SystemExit, KeyboardInterrupt: SIGTERM or SIGINT came; finetuning is saved up to that step.
    """
    started, spent = time.perf_counter(), Spent()
    protocol = registry.protocols[params.tasks[task].protocol] if task in params.tasks else None
    with distributed.joined() as group:
        if not (protocol and protocol.shares_batches):
            if not group.first:
                return
            group = group.alone()
        with group.together():
            job = replace(open_job(params, manifest, run, task), resume=resume, group=group)
            identity = {"dataset": job.dataset, "ablation": job.recipe.ablation, "seed": job.seed, "task": task}
            evaluations.check_free(out, [manifest, *files_in(run)], identity, force)
        with spent.working():
            judged = _judged(job, task)
    if group.first:
        results = {
            **identity,
            "protocol": job.task.protocol,
            "manifest": job.manifest.hash,
            "encoders": runs.encoders_hash(run),
            **({"peers": {key[1]: describe(peer) for key, peer in job.peers.items()}} if job.peers else {}),
            **results_of(job, judged),
        }
        _write(params, job, judged, results, run, out)
        seconds = round(time.perf_counter() - started, 2)
        write_json(out.with_suffix(evaluations.TIMES), {"seconds": seconds, **spent.times()}, sealed=True)


def _write(
    params: Params, job: EvaluationJob[Any], judged: list[Judged], results: dict[str, Any], run: Path, out: Path
) -> None:
    """Writes and logs the results, and deletes what an interrupted evaluation would have gone on from."""
    predictions = [_of_fold(_predictions(one), one.fold) for one in judged]
    confusions = [_of_fold(confusion(one.scores, one.test), one.fold) for one in judged]
    evaluations.write_files(
        out, results, pd.concat(predictions), pd.concat(confusions), partial(write_scores, folds=judged)
    )
    checkpoint.remove_all(job.checkpoints)
    if isinstance(job.settings, FrozenSettings):
        job.fits.remove()
    for note in results["notes"]:
        print(f"xkd: note: {results['task']}: {note}", file=sys.stderr)
    shown = [out, *map(out.with_suffix, (evaluations.PREDICTIONS, evaluations.CONFUSION))]
    _track(params, results, job, run, shown)


def open_job(params: Params, manifest: Path, run: Path, task: str) -> EvaluationJob[Any]:
    """Reads the run and the list of clips, and checks that they fit each other and the task."""
    settings, chosen = params_of_protocol(params, task), params.tasks[task]
    recipe, encoders, seed = load_recipe(run), load_encoders(run), read_json(run / runs.CONFIG)["seed"]
    check_peers(recipe, chosen, f"tasks.{task}")
    peers = load_peers(run)
    clips, prepared = manifests.read_manifest(manifest), _summary(manifest)
    manifests.check_as_prepared(manifest, clips.hash)
    _check_settings(prepared["clips"], manifest, recipe, chosen)
    for fold in chosen.folds or (None,):
        _check_labels(clips, manifest, fold, registry.protocols[chosen.protocol].learns_labels)
    judged = _readable([*encoders, *peers], chosen.modalities, clips, manifest)
    return EvaluationJob(
        encoders={key: encoders[key] for key in judged if key in encoders},
        heads=load_heads(run),
        weights=weights_files(run),
        recipe=with_views(recipe, params, task),
        seed=seed,
        manifest=clips,
        path=manifest,
        dataset=prepared["dataset"],
        task=chosen,
        settings=settings,
        batch_size=params.evaluate.batch_size,
        checkpoints=runs.CHECKPOINTS / runs.name_of(recipe.dataset, recipe.ablation, seed) / prepared["dataset"] / task,
        saving=params.training,
        precision=params.evaluate.precision,
        peers={key: peers[key] for key in judged if key in peers},
    )


def _judged(job: EvaluationJob[Any], task: str) -> list[Judged]:
    """Runs the protocol; an error names the key of the settings that holds the value."""
    protocol = job.task.protocol
    try:
        return list(registry.protocols[protocol].run(job))
    except UserError as error:
        words = str(error)
        for key in job.task.changes:
            words = words.replace(f"evaluate.{protocol}.{key}", f"tasks.{task}.changes.{key}")
        raise UserError(words) from error


def _summary(manifest: Path) -> dict[str, Any]:
    """Reads what `prepare` says about the clips of a manifest."""
    path = manifest.with_name("summary.json")
    try:
        summary = read_json(path)
        return {key: summary[key] for key in ("dataset", "clips")}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: missing or unreadable; run `python -m xkd prepare --out {manifest.parent}`"
        ) from error


def _check_settings(prepared: dict[str, Any], path: Path, recipe: Recipe, task: Task) -> None:
    """Refuses clips cut, scaled or sampled otherwise than those of training; larger views may have larger clips."""
    free = {"pack", "shortest", "silent", "pad"} | ({"size"} if "size" in task.views.get("video_global", {}) else set())
    for key, trained in recipe.clips.model_dump(mode="json", exclude=free).items():
        if prepared.get(key) != trained:
            raise UserError(
                f"{path}: clips.{key} is {prepared.get(key)}, but {recipe.ablation} was trained with {trained}; "
                "prepare these clips with the settings of the run"
            )


def _check_labels(clips: manifests.Manifest, path: Path, fold: str | None, learns: bool) -> None:
    where_fold = f" of fold '{fold}'" if fold else ""
    for split in JUDGED_SPLITS:
        rows = clips.split(split, fold).rows
        if rows.empty:
            raise UserError(
                f"{path}: no usable clips in split '{split}'{where_fold}; see its columns split, fold, status and "
                "reason"
            )
        unlabelled = rows["id"][rows["label"] == ""]
        if len(unlabelled):
            raise UserError(f"{path}: {len(unlabelled)} {split} clips have no label, e.g. {unlabelled.iloc[0]}")
        if learns and split == "train" and rows["label"].nunique() < 2:
            raise UserError(
                f"{path}: all {len(rows)} training clips{where_fold} have the label '{rows['label'].iloc[0]}'; a "
                "classifier needs clips of two labels or more, see the column label"
            )


def _readable(encoders: Sequence[Key], modalities: tuple[str, ...], clips: manifests.Manifest, path: Path) -> list[Key]:
    """Returns the encoders that the task judges and whose modality every clip has."""
    rows = clips.rows[clips.rows["split"].isin(JUDGED_SPLITS)]
    chosen = [key for key in encoders if key[1] in modalities and rows[f"has_{key[1]}"].all()]
    if not chosen:
        raise UserError(
            f"{path}: the run has no encoder of {' or '.join(modalities)} whose modality every clip has; see "
            "datasets.<name>.require and tasks.<name>.modalities"
        )
    return chosen


def _predictions(judged: Judged) -> pd.DataFrame:
    found = {str(one.column): one.predicted for one in judged.scores}
    return pd.DataFrame({"id": judged.test.ids, "label": judged.test.labels} | found)


def _of_fold(table: pd.DataFrame, fold: str | None) -> pd.DataFrame:
    return table if fold is None else table.assign(fold=fold)


def _track(params: Params, results: dict[str, Any], job: EvaluationJob[Any], run: Path, files: Sequence[Path]) -> None:
    """Logs the headline figures in a run of their own and beside the curves of the pretraining run."""
    task, protocol, metrics = results["task"], results["protocol"], results["metrics"]
    shown = {
        column: round(metrics[f"{column}.{metric}"], 2)
        for column, metric in headline_metrics(protocol, metrics).items()
    }
    settings = {k: results[k] for k in ("dataset", "ablation", "seed", "task", "protocol", "manifest")}
    settings |= {"pretrained_on": job.recipe.dataset, **params_of_protocol(params, task).model_dump(mode="json")}
    key = f"evaluate/{runs.name_of(results['dataset'], results['ablation'], results['seed'])}/{task}"
    name = f"{results['ablation']} seed {results['seed']} {task}"
    with tracking.start(tracking.EVALUATION, key, name, settings, {}, digest=_digest(settings)) as tracked:
        for fold, rows in job.curves.items():
            prefix = "" if fold is None else f"{fold}."
            named = [{name if name == "epoch" else f"{prefix}{name}": v for name, v in row.items()} for row in rows]
            tracked.log_steps(named, key="epoch")
        tracked.log_metrics({str(column): value for column, value in shown.items()})
        tracked.log_files(list(files))
    recipe = job.recipe
    foreign = "" if results["dataset"] == recipe.dataset else f"{results['dataset']}."
    columns = {f"{foreign}{column.of_task(task, protocol)}": value for column, value in shown.items()}
    pretraining = f"pretrain/{runs.name_of(recipe.dataset, recipe.ablation, results['seed'])}"
    tracking.attach(records.mlflow_id(run), key=pretraining).log_metrics(columns)


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:16]
