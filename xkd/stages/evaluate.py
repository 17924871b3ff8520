"""Stage `evaluate`: what the encoders of one run are worth on held-out clips, by one protocol."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from xkd import tracking
from xkd.data import manifest as manifests
from xkd.downstream.features import Clips
from xkd.downstream.labels import several
from xkd.downstream.metrics import Scores, summarise
from xkd.downstream.protocols import PROTOCOLS, Job
from xkd.errors import UserError
from xkd.files import replacing, write_json
from xkd.params import canonical
from xkd.settings import Params, Recipe
from xkd.training.export import CONFIG, load_encoders, load_recipe

EXPERIMENT = "xkd-evaluate"


def run(params: Params, manifest: Path, run: Path, protocol: str, out: Path) -> None:
    """Evaluates a run and writes `out`, `<protocol>.predictions.csv` and `<protocol>.times.json` beside it.

    Args:
        params: settings; group `evaluate` is used. How clips are seen is the run's own recipe.
        manifest: labelled clips with the splits train and test; may be of another data set than the run's.
        run: folder that `pretrain` wrote.
        protocol: "linear" (frozen features: logistic regression and kNN) or "finetune".
        out: the JSON file of results.

    Raises:
        UserError: no such run or protocol, clips prepared with other settings than the run's, no labels, an empty
            split, or a clip that cannot be read. Earlier results stay as they are.
    """
    started = time.perf_counter()
    if protocol not in PROTOCOLS:
        raise UserError(f"--protocol {protocol}: not a protocol; choose from {', '.join(PROTOCOLS)}")
    recipe, encoders = load_recipe(run), load_encoders(run)
    seed = json.loads((run / CONFIG).read_text())["seed"]
    clips, prepared = manifests.read(manifest), _summary(manifest)
    _check_settings(prepared["clips"], manifest, recipe)
    _check_labels(clips, manifest, protocol)
    encoders = _readable(encoders, clips, manifest)
    job = Job(encoders, recipe, seed, clips, manifest, params.evaluate)
    test, scores, chosen = PROTOCOLS[protocol](job)
    values, intervals = summarise(scores, test)
    results = {
        "dataset": prepared["dataset"],
        "ablation": recipe.ablation,
        "seed": seed,
        "protocol": protocol,
        "manifest": clips.hash,
        "clips": {split: len(clips.split(split).rows) for split in ("train", "test")},
        "items": {modality: len(np.unique(names)) for modality, names in test.items.items()},
        "metrics": values,
        "intervals": intervals,
        "chosen": chosen,
    }
    predictions = out.with_suffix(".predictions.csv")
    with replacing(predictions) as temporary:
        _predictions(scores, test).to_csv(temporary, index=False)
    write_json(out, results)
    _track(params, results, recipe, run, [out, predictions])
    write_json(out.with_suffix(".times.json"), {"seconds": round(time.perf_counter() - started, 2)})


def _summary(manifest: Path) -> dict:
    """What `prepare` says about the clips of a manifest."""
    path = manifest.with_name("summary.json")
    try:
        summary = json.loads(path.read_text())
        return {key: summary[key] for key in ("dataset", "clips")}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: missing or unreadable; run `python -m xkd prepare --out {manifest.parent}`"
        ) from error


def _check_settings(prepared: dict, path: Path, recipe: Recipe) -> None:
    """Encoders judge only clips cut, scaled and sampled as those that they were trained on."""
    for key, trained in recipe.clips.model_dump(mode="json", exclude={"pack"}).items():
        if prepared.get(key) != trained:
            raise UserError(
                f"{path}: clips.{key} is {prepared.get(key)}, but {recipe.ablation} was trained with {trained}; "
                "prepare these clips with the settings of the run"
            )


def _check_labels(clips: manifests.Manifest, path: Path, protocol: str) -> None:
    for split in ("train", "test"):
        rows = clips.split(split).rows
        if rows.empty:
            raise UserError(f"{path}: no usable clips in split '{split}'; see its columns split, status and reason")
        unlabelled = rows["id"][rows["label"] == ""]
        if len(unlabelled):
            raise UserError(f"{path}: {len(unlabelled)} {split} clips have no label, e.g. {unlabelled.iloc[0]}")
        if protocol == "finetune" and several(rows["label"]):
            raise UserError(f"{path}: clips have several labels; finetuning takes one per clip, use --protocol linear")


def _readable(encoders: dict, clips: manifests.Manifest, path: Path) -> dict:
    """The encoders whose modality every clip has: a set of sounds is no test of pictures."""
    rows = clips.rows[clips.rows["split"].isin(("train", "test"))]
    chosen = {key: encoder for key, encoder in encoders.items() if rows[f"has_{key[1]}"].all()}
    if not chosen:
        wanted = " or ".join(sorted({modality for _, modality in encoders}))
        raise UserError(
            f"{path}: not every clip has {wanted}, which the run's encoders read; see datasets.<name>.require"
        )
    return chosen


def _predictions(scores: list[Scores], test: Clips) -> pd.DataFrame:
    return pd.DataFrame({"id": test.ids, "label": test.labels} | {one.name: one.predicted for one in scores})


def _track(params: Params, results: dict, recipe: Recipe, run: Path, files: list[Path]) -> None:
    """Shows the accuracies in a run of their own and beside the curves of the pretraining run."""
    metrics = results["metrics"]
    shown = ".top1" if any(name.endswith(".top1") for name in metrics) else ".map"
    accuracies = {k.removesuffix(shown): round(v, 2) for k, v in metrics.items() if k.endswith(shown)}
    settings = {k: results[k] for k in ("dataset", "ablation", "seed", "protocol", "manifest")}
    settings |= getattr(params.evaluate, results["protocol"]).model_dump(mode="json")
    key = "evaluate/{dataset}/{ablation}/seed{seed}/{protocol}".format(**results)
    name = "{ablation} seed {seed} {protocol}".format(**results)
    with tracking.start(EXPERIMENT, key, name, settings, {}, digest=_digest(settings)) as tracked:
        tracked.log_metrics(accuracies)
        tracked.log_files(files)
    pretraining = _pretraining_id(run)
    if pretraining:
        foreign = "" if results["dataset"] == recipe.dataset else f"{results['dataset']}."
        tracking.attach(pretraining).log_metrics({foreign + name: value for name, value in accuracies.items()})


def _pretraining_id(run: Path) -> str | None:
    try:
        return json.loads((run / "mlflow.json").read_text())["run_id"]
    except (OSError, ValueError, KeyError):
        return None  # tracking is a convenience: a run without it is evaluated all the same


def _digest(settings: dict) -> str:
    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:16]
