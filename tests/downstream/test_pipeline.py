"""From generated clips through a run of random encoders to evaluations, with nothing replaced."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from xkd import load_encoder
from xkd.data import manifest as manifests
from xkd.data.clips import open_clips
from xkd.data.views import EvalViews
from xkd.downstream.protocols import Job
from xkd.errors import UserError
from xkd.params import merge
from xkd.params import recipe as recipe_of
from xkd.settings import Params
from xkd.stages import download, evaluate, prepare
from xkd.training.build import build_networks
from xkd.training.export import load_encoders, save_encoders

CHANGES = {
    "dataset": "talking_digits",
    "datasets": {"talking_digits": {"kind": "talking_digits", "train_clips": 40, "test_clips": 20}},
    "evaluate": {"finetune": {"epochs": 1, "batch_size": 16}, "linear": {"C": [0.1, 1.0]}},
    "tasks": {
        "several_views": {"protocol": "svm", "clips": 3, "crops": 3, "train_clips": 2, "changes": {"C": [0.01]}},
        "layer": {"protocol": "layer", "changes": {"epochs": 3}},
        "folds": {"protocol": "linear", "folds": ["a", "b"], "changes": {"C": [1.0]}},
        "folds_finetuned": {"protocol": "finetune", "folds": ["a", "b"]},
    },
}


@pytest.fixture(scope="module")
def params():
    settings = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    return Params.model_validate(merge(settings, CHANGES))


@pytest.fixture(scope="module")
def project(tmp_path_factory, params):
    """Prepared clips and one run whose encoders are random."""
    folder = tmp_path_factory.mktemp("project")
    download.run(params, "talking_digits", folder / "raw")
    prepare.run(params, folder / "raw" / "index.csv", folder)
    recipe = recipe_of(params, "xkd")
    save_encoders(build_networks(recipe, 0), recipe, 0, folder / "run")
    return folder


@pytest.mark.parametrize("protocol", ["linear", "layer", "finetune"])
def test_evaluation_repeats_and_its_predictions_add_up(project, params, protocol):
    written = []
    for attempt in ("first", "second"):
        out = project / attempt / f"{protocol}.json"
        evaluate.run(params, project / "manifest.csv", project / "run", protocol, out)
        written.append((out.read_bytes(), out.with_suffix(".predictions.csv").read_bytes()))
    assert written[0] == written[1]
    results, predictions = json.loads(out.read_text()), pd.read_csv(out.with_suffix(".predictions.csv"), dtype=str)
    test = manifests.read(project / "manifest.csv").split("test").rows
    assert predictions["id"].tolist() == test["id"].tolist() and predictions["label"].tolist() == test["label"].tolist()
    assert results["clips"] == {"train": 40, "test": 20}
    assert results["items"]["video"] == test["video_source"].nunique()
    for name in predictions.columns[2:]:
        right = 100 * (predictions[name] == predictions["label"]).mean()
        assert results["metrics"][f"{name}.top1"] == pytest.approx(right, abs=1e-3)
        counts = pd.crosstab(predictions["label"], predictions[name])
        for label, percent in results["per_class"][name].items():
            found = counts.loc[label, label] if label in counts else 0
            assert percent == pytest.approx(100 * found / counts.loc[label].sum(), abs=1e-3)


def test_features_are_those_of_each_clip_seen_alone(project, params):
    recipe, path = recipe_of(params, "xkd"), project / "manifest.csv"
    encoders = load_encoders(project / "run")
    task, evaluation = params.tasks["linear"], params.evaluate
    job = Job(encoders, recipe, 0, manifests.read(path), path, task, evaluation.linear, evaluation.batch_size)
    clips = job.extract({key: encoder.features for key, encoder in encoders.items()}, "test")
    store, views = open_clips(path, "test"), EvalViews(recipe)
    for index in (0, 7, 19):
        view = views(store, index)
        for (owner, modality), encoder in encoders.items():
            with torch.no_grad():
                tokens = encoder(view[modality][0][None])
            np.testing.assert_allclose(clips.outputs[owner, modality][index, 0], tokens[0, 1:].mean(0), atol=1e-5)


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_encoder_called_with_a_raw_clip_sees_what_evaluation_shows_it(project, params, modality):
    """A user's `load_encoder(...)(clip)` and the probes of the table must mean the same features."""
    recipe, path = recipe_of(params, "xkd"), project / "manifest.csv"
    model = load_encoder(project / "run" / "encoders" / f"{modality}_student")
    store = open_clips(path, "test")
    view = EvalViews(recipe)(store, 3)[modality][0]
    with torch.no_grad():
        expected = model.encoder.features(view[None])[0]
    if modality == "video":
        got = model(store.video(3).permute(0, 2, 3, 1)[: recipe.views.video_global.frames])
    else:
        got = model(store.audio(3), recipe.clips.sample_rate)
    cosine = torch.cosine_similarity(got, expected, dim=0)
    assert cosine > 0.9999


@pytest.fixture(scope="module")
def folded(project, tmp_path_factory):
    """The same clips in two official folds: each clip is tested in one and trains in the other."""
    folder = tmp_path_factory.mktemp("folded")
    for entry in project.iterdir():
        (folder / entry.name).symlink_to(entry)
    (folder / "manifest.csv").unlink()
    rows = manifests.read(project / "manifest.csv").all_rows
    manifests.write(folder / "manifest.csv", rows.assign(fold=["ab"[i % 2] for i in range(len(rows))]))
    return folder


@pytest.mark.parametrize("task", ["folds", "folds_finetuned"])
def test_folds_are_evaluated_one_by_one_and_averaged(folded, params, task, tmp_path):
    evaluate.run(params, folded / "manifest.csv", folded / "run", task, tmp_path / "out.json")
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["task"] == task and set(results["folds"]) == {"a", "b"}
    predictions = pd.read_csv(tmp_path / "out.predictions.csv", dtype=str)
    rows = manifests.read(folded / "manifest.csv").rows.set_index("id")
    for fold, part in predictions.groupby("fold"):
        assert sorted(part["id"]) == sorted(rows.index[rows["fold"] == fold])
    for name, mean in results["metrics"].items():
        each = [results["folds"][fold]["metrics"][name] for fold in "ab"]
        assert mean == pytest.approx(np.mean(each), abs=1e-3)
        assert results["spread"][name] == pytest.approx(np.std(each, ddof=1), abs=1e-3)
    right = (predictions["label"] == predictions[predictions.columns[2]]).groupby(predictions["fold"]).mean()
    assert results["metrics"][f"{predictions.columns[2]}.top1"] == pytest.approx(100 * right.mean(), abs=1e-3)


def test_unknown_fold_names_the_known_ones(folded, params, tmp_path):
    other = params.model_copy(update={"tasks": {"x": params.tasks["folds"].model_copy(update={"folds": ("c",)})}})
    with pytest.raises(UserError, match="no clip is tested in fold 'c'; folds: a, b"):
        evaluate.run(other, folded / "manifest.csv", folded / "run", "x", tmp_path / "out.json")


def test_several_views_are_averaged_as_scores(project, params, tmp_path, monkeypatch):
    """Scores of a test clip: the mean over its views of what a machine fitted on all training views says."""
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    seen = {}
    extracted = Job.extract

    def spy(job, networks, split, augmented=None):
        clips = extracted(job, networks, split, augmented)
        seen[split, augmented] = clips
        return clips

    monkeypatch.setattr(Job, "extract", spy)
    evaluate.run(params, project / "manifest.csv", project / "run", "several_views", tmp_path / "out.json")
    key = ("student", "video")
    test = seen["test", None].outputs[key]
    assert test.shape[:2] == (20, 9) and seen["test", None].outputs["student", "audio"].shape[:2] == (20, 3)
    train_ids = manifests.read(project / "manifest.csv").split("train").ids
    parts = [seen[None, i].take(train_ids) for i in range(2)]
    x, y = np.concatenate([part.outputs[key][:, 0] for part in parts]), np.tile(parts[0].labels, 2)
    assert not np.allclose(parts[0].outputs[key], parts[1].outputs[key])
    scaler = StandardScaler().fit(x.astype(float))
    model = LinearSVC(C=0.01, max_iter=1000, random_state=0).fit(scaler.transform(x.astype(float)), y)
    mean = np.mean([model.decision_function(scaler.transform(test[:, v].astype(float))) for v in range(9)], axis=0)
    predictions = pd.read_csv(tmp_path / "out.predictions.csv", dtype=str)["student.video.svm"]
    assert (predictions == model.classes_[mean.argmax(1)]).mean() > 0.9  # examples come in another order


def test_shuffled_labels_give_chance(project, params, tmp_path, monkeypatch):
    """Nothing leaks from test clips into the probes: labels without meaning are not found."""
    rows = manifests.read(project / "manifest.csv").all_rows
    generator = np.random.default_rng(0)
    folder = tmp_path / "shuffled"
    folder.mkdir()
    for entry in project.iterdir():
        (folder / entry.name).symlink_to(entry)
    (folder / "manifest.csv").unlink()
    hits = []
    for attempt in range(3):
        mixed = rows.assign(label=generator.permutation(rows["label"].to_numpy()))
        manifests.write(folder / "manifest.csv", mixed)
        evaluate.run(params, folder / "manifest.csv", folder / "run", "linear", tmp_path / f"{attempt}.json")
        metrics = json.loads((tmp_path / f"{attempt}.json").read_text())["metrics"]
        hits += [metrics[f"student.{modality}.linear.top1"] for modality in ("video", "audio")]
    # Ten labels, 20 test clips, six probes: four standard errors around 10 %.
    assert abs(np.mean(hits) - 10) < 4 * 100 * np.sqrt(0.1 * 0.9 / (20 * len(hits)))
