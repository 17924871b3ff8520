"""A protocol that a plugin registers shows up in results, MLflow, table and report as ours do."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from downstream_fakes import Tracking
from run_folders import seal
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

from xkd import plugins, registry, runs
from xkd.data import manifest as manifests
from xkd.errors import UserError
from xkd.files import write_json
from xkd.params import load, merge
from xkd.params import recipe as recipe_of
from xkd.runs.evaluations import folder_of
from xkd.stages import download, evaluate, prepare, table
from xkd.training.build import build_networks
from xkd.training.export import save_encoders

ROOT, PLUGIN = Path(__file__).parents[2], Path(__file__).parents[1] / "plugins" / "prototypes.py"
TASKS = {
    "linear": {"protocol": "linear", "changes": {"C": [1.0]}},
    "prototypes": {"protocol": "prototypes"},
    "unscaled": {"protocol": "prototypes", "changes": {"scaled": False}},
}
CHANGES = {
    "plugins": [str(PLUGIN)],
    "dataset": "talking_digits",
    "seeds": [0],
    "datasets": {"talking_digits": {"kind": "talking_digits", "train_clips": 40, "test_clips": 20}},
}


@pytest.fixture(scope="module")
def settings():
    """Settings that name the plugin; afterwards no other test knows it."""
    values = merge(yaml.safe_load((ROOT / "params.yaml").read_text()), CHANGES)
    rows = {name: values["ablations"][name] for name in ("ae", "random_init")}
    yield values | {"tasks": TASKS, "ablations": rows}
    for kind in registry.ALL:
        kind.forget(PLUGIN)
    plugins._loaded.pop(PLUGIN, None)


@pytest.fixture(scope="module")
def project(settings, tmp_path_factory):
    """Evaluations of two rows by all tasks, what MLflow got of them, and the report."""
    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").write_text(yaml.safe_dump(settings))
    recorded = Tracking()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(evaluate, "tracking", recorded)
        params = load()
        data = Path("data/talking_digits")
        download.run(params, "talking_digits", data / "raw")
        prepare.run(params, data / "raw" / "index.csv", data)
        for ablation in params.ablations:
            run = runs.RUNS / runs.name_of("talking_digits", ablation, 0)
            save_encoders(build_networks(recipe_of(params, ablation), 0), recipe_of(params, ablation), 0, run)
            _complete(run, manifests.read_manifest(data / "manifest.csv").hash)
            for task in params.tasks:
                out = folder_of("talking_digits", ablation, 0) / f"{task}.json"
                evaluate.run(params, data / "manifest.csv", run, task, out)
        table.run(params, Path("results"))
        evals = root / folder_of("talking_digits", "ae", 0)
        yield SimpleNamespace(evals=evals, results=root / "results", tracked=recorded.runs, root=root)


def _complete(run: Path, manifest: str) -> None:
    """Adds the files that pretraining writes beside encoders, as of a run that logged nothing."""
    write_json(run / runs.METRICS, {"manifest": manifest, "trainable_parameters": 1, "columns": []})
    write_json(run / runs.TIMES, {"seconds": 1.0})
    write_json(run / runs.TRACKING, {"run_id": f"id-of-{run.parent.name}"})
    write_json(run / runs.VERSIONS, {})
    (run / runs.HISTORY).write_text("epoch\n")
    (run / runs.STEPS).write_text("step\n")
    (run / runs.PICTURE).write_text("")
    for name in (runs.SAMPLES, runs.EMBEDDINGS):
        np.savez(run / name, ids=np.array([], dtype=str), labels=np.array([], dtype=str))
    seal(run)


def test_its_figures_are_those_of_scikit_learn(project):
    """Features on disk are what every protocol judges."""
    rows = manifests.read_manifest(project.root / "data/talking_digits/manifest.csv").rows
    (train, test) = (rows[rows["split"] == split]["label"].to_numpy(str) for split in ("train", "test"))
    features = {}
    for split in ("train", "test"):
        (file,) = (project.root / "features/talking_digits/ae/seed0").glob(f"*-{split}-*/student_audio.f32")
        width = json.loads(file.with_suffix(".json").read_text())["width"]
        features[split] = np.fromfile(file, np.float32).reshape(-1, width).astype(np.float64)
    scale = StandardScaler(with_mean=False).fit(features["train"])
    for task, x in {"unscaled": features, "prototypes": {k: scale.transform(v) for k, v in features.items()}}.items():
        expected = NearestCentroid().fit(x["train"], train).predict(x["test"])
        found = pd.read_csv(project.evals / f"{task}.predictions.csv", dtype=str)["student.audio.prototypes"]
        assert (found == expected).mean() >= 0.95  # rounding may decide between two classes
        metrics = json.loads((project.evals / f"{task}.json").read_text())["metrics"]
        assert metrics["student.audio.prototypes.top1"] == pytest.approx(100 * (found == test).mean(), abs=1e-3)


def test_its_columns_stand_in_the_table_with_its_title_after_ours(project):
    columns = pd.read_csv(project.results / "table.csv").columns
    means = [name.removesuffix(".mean") for name in columns if name.endswith(".mean")]
    order = [name.split(".")[2] for name in means if name.startswith("student.video.")]
    assert order == ["linear", "knn", "prototypes", "unscaled_prototypes"]
    for page in ("table.md", "report.html"):
        text = (project.results / page).read_text()
        assert "video class means" in text
        assert "video unscaled_prototypes" in text
    assert (
        "Task `unscaled`: protocol prototypes on data set `talking_digits`"
        in (project.results / "table.md").read_text()
    )


def test_mlflow_gets_its_headline_figures(project):
    metrics = json.loads((project.evals / "prototypes.json").read_text())["metrics"]
    own = project.tracked["xkd-evaluate", "evaluate/talking_digits/ae/seed0/prototypes"]
    assert own["student.video.prototypes"] == round(metrics["student.video.prototypes.top1"], 2)
    beside = project.tracked["id-of-ae"]
    assert {"student.video.linear", "student.video.prototypes", "student.video.unscaled_prototypes"} <= beside.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"x": {"protocol": "prototype"}}}, "no protocol 'prototype'; did you mean 'prototypes'"),
        ({"tasks": {"x": {"protocol": "prototypes", "changes": {"scald": True}}}}, "did you mean 'scaled'"),
        ({"evaluate": {"prototypes": {"scaled": 3}}}, "scaled"),
    ],
)
def test_mistakes_in_its_settings_are_explained(settings, tmp_path, changes, message):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(merge(settings, changes)))
    with pytest.raises(UserError, match=message):
        load(tmp_path / "params.yaml")
