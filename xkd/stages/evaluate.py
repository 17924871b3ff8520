"""Stage `evaluate`: what the encoders of one run are worth on held-out clips, by one task."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xkd import csv_files, runs, tracking
from xkd.data import manifest as manifests
from xkd.downstream import notes, score_file
from xkd.downstream.features import Clips, Key
from xkd.downstream.metrics import (
    DECIMALS,
    Retrieved,
    Scores,
    chance,
    confusion,
    per_class,
    ranking_intervals,
    summarise,
)
from xkd.downstream.protocols import PROTOCOLS, Job, Result
from xkd.errors import UserError
from xkd.files import check_output, files_in, read_json, replacing, sha256, write_json
from xkd.models.encoder import Encoder
from xkd.params import canonical, column, headline, with_views
from xkd.params import protocol as params_of_protocol
from xkd.recipe import Recipe
from xkd.runs import CONFIG, TRACKING
from xkd.settings import Params, Retrieval, Task
from xkd.training.export import load_encoders, load_heads, load_recipe, weights_files

SPLITS = ("train", "test")
TIMES = ".times.json"
BESIDE = PREDICTIONS, CONFUSION, SCORES = (".predictions.csv", ".confusion.csv", ".scores.parquet")


def run(params: Params, manifest: Path, run: Path, task: str, out: Path, force: bool = False) -> None:
    """Evaluates a run and writes `out`, and `<task>.predictions.csv`, `.confusion.csv`,
    `.scores.parquet` and `.times.json` beside it.

    Args:
        params: settings; groups `evaluate` and `tasks` are used. How clips are seen is the run's own recipe.
        manifest: labelled clips with the splits train and test, or official folds; may be of another data set than the
            run's.
        run: folder that `pretrain` wrote.
        task: entry of `tasks` in the settings.
        out: the JSON file of results. Over several folds, metrics are means, with standard deviations beside them.
        force: files of these names may be replaced; earlier results of the same run and task are in any case.

    Raises:
        UserError: no such run, task or fold, clips prepared with other settings than the run's, no labels, an empty
            split, or a clip that cannot be read. Earlier results stay as they are.
    """
    started = time.perf_counter()
    settings = params_of_protocol(params, task)
    chosen_task = params.tasks[task]
    recipe, encoders = load_recipe(run), load_encoders(run)
    seed = read_json(run / CONFIG)["seed"]
    clips, prepared = manifests.read_manifest(manifest), _summary(manifest)
    _check_outputs(out, [manifest, *files_in(run)], (prepared["dataset"], recipe.ablation, seed, task), force)
    _check_settings(prepared["clips"], manifest, recipe, chosen_task)
    for fold in chosen_task.folds or (None,):
        _check_labels(clips, manifest, fold, trains=not isinstance(settings, Retrieval))
    encoders = _readable(encoders, chosen_task.modalities, clips, manifest)
    job = Job(
        encoders=encoders,
        heads=load_heads(run),
        weights=weights_files(run),
        recipe=with_views(recipe, params, task),
        seed=seed,
        manifest=clips,
        path=manifest,
        dataset=prepared["dataset"],
        task=chosen_task,
        settings=settings,
        batch_size=params.evaluate.batch_size,
    )
    folds: dict[str | None, dict[str, Any]] = {}
    parts: list[score_file.Part] = []
    for fold, (test, scores, chosen, remarks) in _evaluated(job, task):
        values, intervals = summarise(scores, test)
        of_map, of_classes = ranking_intervals(scores, test)
        folds[fold] = {
            "items": _items([test], job),
            "clips": _counts(job, [fold]),
            "metrics": values,
            "intervals": intervals | of_map,
            "chance": chance(scores, test),
            "per_class": per_class(scores, test),
            **({"per_class_intervals": of_classes} if of_classes else {}),
            "chosen": chosen,
            "notes": _notes(job, fold) + remarks,
        }
        parts.append((fold, test, scores))
    results = {
        "dataset": prepared["dataset"],
        "ablation": recipe.ablation,
        "seed": seed,
        "task": task,
        "protocol": chosen_task.protocol,
        "manifest": clips.hash,
        "encoders": runs.encoders_hash(run),
        **_over_folds(folds),
    }
    if len(folds) > 1:
        results |= {"items": _items([test for _, test, _ in parts], job), "clips": _counts(job, list(folds))}
    _write(out, results, parts)
    for note in results["notes"]:
        print(f"xkd: note: {task}: {note}", file=sys.stderr)
    _track(params, results, recipe, run, [out, *map(out.with_suffix, (PREDICTIONS, CONFUSION))])
    write_json(out.with_suffix(TIMES), {"seconds": round(time.perf_counter() - started, 2)})


def _items(tests: list[Clips], job: Job[Any]) -> dict[str, int]:
    """Distinct sources that the test clips are made of, for each modality that is judged."""
    judged = sorted({modality for _, modality in job.encoders}, reverse=True)
    return {modality: len({name for test in tests for name in test.items[modality].tolist()}) for modality in judged}


def _counts(job: Job[Any], folds: list[str | None]) -> dict[str, Any]:
    """Clips that took part, those that the list of the data set names for it, and why the others were left out.

    A clip that several folds train on, or test, counts once.
    """
    rows = {split: [job.manifest.split(split, fold).all_rows for fold in folds] for split in SPLITS}
    listed = {split: of[0] if len(of) == 1 else pd.concat(of).drop_duplicates() for split, of in rows.items()}
    return {
        **{split: int((of["status"] == "ok").sum()) for split, of in listed.items()},
        **{f"listed_{split}": len(rows) for split, rows in listed.items()},
        "left_out": {split: manifests.reasons(rows) for split, rows in listed.items()},
    }


def _evaluated(job: Job[Any], task: str) -> Iterator[tuple[str | None, Result]]:
    """What the protocol says of each fold; an error names the key of the settings that holds the value."""
    protocol = job.task.protocol
    try:
        yield from PROTOCOLS[protocol](job)
    except UserError as error:
        words = str(error)
        for key in job.task.changes:
            words = words.replace(f"evaluate.{protocol}.{key}", f"tasks.{task}.changes.{key}")
        raise UserError(words) from error


def _notes(job: Job[Any], fold: str | None) -> list[str]:
    """What the manifest's rows say against the figures of a fold."""
    train, test = (job.manifest.split(split, fold).rows for split in SPLITS)
    trained, tested = (rows["label"].to_numpy(str) for rows in (train, test))
    modalities = sorted({modality for _, modality in job.encoders})
    if not isinstance(job.settings, Retrieval):
        return notes.of_labels(trained, tested) + notes.of_clips(train, test, modalities)
    # Nothing is learned from labels here, but they may say what is found.
    by_label = notes.of_labels(tested, tested) if job.settings.relevant == "label" else []
    return by_label + notes.of_clips(train, test, modalities)


def _write(out: Path, results: dict[str, Any], parts: list[score_file.Part]) -> None:
    """Writes every file before the first takes its place; the results, which hold the hashes of the others, come last."""
    with ExitStack() as stack:
        last = stack.enter_context(replacing(out))
        beside = {suffix: stack.enter_context(replacing(out.with_suffix(suffix))) for suffix in BESIDE}
        predictions = [_of_fold(_predictions(scores, test), fold) for fold, test, scores in parts]
        confusions = [_of_fold(confusion(scores, test), fold) for fold, test, scores in parts]
        csv_files.write_csv(beside[PREDICTIONS], pd.concat(predictions))
        csv_files.write_csv(beside[CONFUSION], pd.concat(confusions))
        score_file.write(beside[SCORES], parts)
        write_json(last, results | {"files": {suffix: sha256(path) for suffix, path in beside.items()}})


def _check_outputs(out: Path, inputs: list[Path], what: tuple[Any, ...], force: bool) -> None:
    """`out` and the files beside it are free, or hold earlier results of the same run and task."""
    if out.suffix != ".json":
        raise UserError(f"--out {out}: JSON is written; give a name that ends in .json")
    try:
        earlier = read_json(out)
        ours = tuple(earlier[key] for key in ("dataset", "ablation", "seed", "task")) == what
    except (OSError, ValueError, KeyError):
        ours = False
    for suffix in (".json", *BESIDE, TIMES):
        check_output(out.with_suffix(suffix), inputs, force, ours)


def _over_folds(folds: dict[str | None, dict[str, Any]]) -> dict[str, Any]:
    """The only fold's results, or means over official folds with their spread, and every fold's own."""
    parts = list(folds.values())
    if len(parts) == 1:
        return parts[0]
    common = [name for name in parts[0]["metrics"] if all(name in part["metrics"] for part in parts)]
    every = {name: np.array([part["metrics"][name] for part in parts]) for name in common}
    return {
        "chance": {
            k: round(float(np.mean([part["chance"][k] for part in parts])), DECIMALS) for k in parts[0]["chance"]
        },
        "metrics": {name: round(float(values.mean()), DECIMALS) for name, values in every.items()},
        "spread": {name: round(float(values.std(ddof=1)), DECIMALS) for name, values in every.items()},
        "notes": notes.over_folds({str(fold): part["notes"] for fold, part in folds.items()}),
        "folds": folds,
    }


def _summary(manifest: Path) -> dict[str, Any]:
    """What `prepare` says about the clips of a manifest."""
    path = manifest.with_name("summary.json")
    try:
        summary = read_json(path)
        return {key: summary[key] for key in ("dataset", "clips")}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: missing or unreadable; run `python -m xkd prepare --out {manifest.parent}`"
        ) from error


def _check_settings(prepared: dict[str, Any], path: Path, recipe: Recipe, task: Task) -> None:
    """Encoders judge only clips cut, scaled and sampled as those that they were trained on; larger views need larger clips."""
    free = {"pack", "shortest", "pad"} | ({"size"} if "size" in task.views.get("video_global", {}) else set())
    for key, trained in recipe.clips.model_dump(mode="json", exclude=free).items():
        if prepared.get(key) != trained:
            raise UserError(
                f"{path}: clips.{key} is {prepared.get(key)}, but {recipe.ablation} was trained with {trained}; "
                "prepare these clips with the settings of the run"
            )


def _check_labels(clips: manifests.Manifest, path: Path, fold: str | None, trains: bool) -> None:
    where_fold = f" of fold '{fold}'" if fold else ""
    for split in SPLITS:
        rows = clips.split(split, fold).rows
        if rows.empty:
            raise UserError(
                f"{path}: no usable clips in split '{split}'{where_fold}; see its columns split, fold, status and reason"
            )
        unlabelled = rows["id"][rows["label"] == ""]
        if len(unlabelled):
            raise UserError(f"{path}: {len(unlabelled)} {split} clips have no label, e.g. {unlabelled.iloc[0]}")
        if trains and split == "train" and rows["label"].nunique() < 2:
            raise UserError(
                f"{path}: all {len(rows)} training clips{where_fold} have the label '{rows['label'].iloc[0]}'; a "
                "classifier needs clips of two labels or more, see the column label"
            )


def _readable(
    encoders: dict[Key, Encoder], modalities: tuple[str, ...], clips: manifests.Manifest, path: Path
) -> dict[Key, Encoder]:
    """The encoders that the task judges and whose modality every clip has: a set of sounds is no test of pictures."""
    encoders = {key: encoder for key, encoder in encoders.items() if key[1] in modalities}
    rows = clips.rows[clips.rows["split"].isin(SPLITS)]
    chosen = {key: encoder for key, encoder in encoders.items() if rows[f"has_{key[1]}"].all()}
    if not chosen:
        raise UserError(
            f"{path}: the run has no encoder of {' or '.join(modalities)} that every clip can be shown to; see "
            "datasets.<name>.require and tasks.<name>.modalities"
        )
    return chosen


def _predictions(scores: Sequence[Scores | Retrieved], test: Clips) -> pd.DataFrame:
    return pd.DataFrame({"id": test.ids, "label": test.labels} | {one.name: one.predicted for one in scores})


def _of_fold(table: pd.DataFrame, fold: str | None) -> pd.DataFrame:
    return table if fold is None else table.assign(fold=fold)


def _track(params: Params, results: dict[str, Any], recipe: Recipe, run: Path, files: list[Path]) -> None:
    """Shows the accuracies in a run of their own and beside the curves of the pretraining run."""
    accuracies = {name: round(value, 2) for name, value in headline(results["metrics"]).items()}
    settings = {k: results[k] for k in ("dataset", "ablation", "seed", "task", "protocol", "manifest")}
    settings |= params_of_protocol(params, results["task"]).model_dump(mode="json")
    key = "evaluate/{dataset}/{ablation}/seed{seed}/{task}".format(**results)
    name = "{ablation} seed {seed} {task}".format(**results)
    with tracking.start(tracking.EVALUATION, key, name, settings, {}, digest=_digest(settings)) as tracked:
        tracked.log_metrics(accuracies)
        tracked.log_files(files)
    foreign = "" if results["dataset"] == recipe.dataset else f"{results['dataset']}."
    columns = {foreign + column(results["task"], results["protocol"], k): v for k, v in accuracies.items()}
    pretraining = f"pretrain/{recipe.dataset}/{recipe.ablation}/seed{results['seed']}"
    tracking.attach(_pretraining_id(run), key=pretraining).log_metrics(columns)


def _pretraining_id(run: Path) -> str | None:
    try:
        run_id: str | None = read_json(run / TRACKING)["run_id"]
        return run_id
    except (OSError, ValueError, KeyError):
        return None  # tracking is a convenience: a run without it is evaluated all the same


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:16]
