"""From generated clips through a run of random encoders to evaluations, with nothing replaced."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
import yaml
from run_folders import note, seal

from xkd import load_encoder, runs
from xkd.data import manifest as manifests
from xkd.data.clips import open_clips
from xkd.data.views import EvalViews
from xkd.downstream.job import EvaluationJob
from xkd.errors import UserError
from xkd.params import merge, protocol, with_views
from xkd.params import recipe as recipe_of
from xkd.settings import Params
from xkd.stages import download, evaluate, features, prepare
from xkd.training.build import build_networks
from xkd.training.export import load_encoders, load_heads, save_encoders, weights_files

CHANGES = {
    "dataset": "talking_digits",
    "datasets": {"talking_digits": {"kind": "talking_digits", "train_clips": 40, "test_clips": 20}},
    "evaluate": {
        "finetune": {"epochs": 1, "batch_size": 16},
        "linear": {"C": [0.1, 1.0], "encoders": ["student", "teacher"]},
    },
    "tasks": {
        "linear": {"dataset": None},
        "finetune": {"dataset": None},
        "several_views": {"protocol": "svm", "clips": 3, "crops": 3, "train_clips": 2, "changes": {"C": [0.01]}},
        "layer": {"protocol": "layer", "changes": {"epochs": 3}},
        "attentive": {"protocol": "attentive", "changes": {"epochs": 2}},
        "tokens_of_views": {
            "protocol": "attentive",
            "clips": 3,
            "crops": 3,
            "train_clips": 2,
            "changes": {"epochs": 2},
        },
        "svm": {"protocol": "svm", "changes": {"C": [0.01]}},
        "few_shot": {"protocol": "few_shot", "changes": {"shots": [1, 3], "draws": 3}},
        "retrieval": {"protocol": "retrieval"},
        "same_label": {"protocol": "retrieval", "clips": 2, "changes": {"relevant": "label", "encoders": ["student"]}},
        "enlarged": {
            "protocol": "finetune",
            "views": {"video_global": {"size": 48, "crop_area": [0.5, 1]}, "audio_global": {"frames": 48}},
        },
        "enlarged_probe": {
            "protocol": "linear",
            "views": {"video_global": {"size": 48}, "audio_global": {"frames": 48}},
        },
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
    seal(folder / "run")
    return folder


@pytest.fixture(autouse=True)
def features_folder(project, monkeypatch):
    """Where features are kept; checkpoints lie beside them."""
    monkeypatch.setattr(runs, "FEATURES", project / "features")
    monkeypatch.setattr(runs, "CHECKPOINTS", project / "checkpoints")
    return project / "features"


@pytest.mark.parametrize("protocol", ["linear", "layer", "attentive", "finetune"])
def test_evaluation_repeats_and_its_predictions_add_up(project, params, protocol):
    written = []
    for attempt in ("first", "second"):
        out = project / attempt / f"{protocol}.json"
        evaluate.run(params, project / "manifest.csv", project / "run", protocol, out)
        written.append((out.read_bytes(), out.with_suffix(".predictions.csv").read_bytes()))
    assert written[0] == written[1]
    results, predictions = json.loads(out.read_text()), pd.read_csv(out.with_suffix(".predictions.csv"), dtype=str)
    test = manifests.read_manifest(project / "manifest.csv").split("test").rows
    assert predictions["id"].tolist() == test["id"].tolist()
    assert predictions["label"].tolist() == test["label"].tolist()
    assert (results["clips"]["train"], results["clips"]["test"]) == (40, 20)
    assert results["items"]["video"] == test["video_source"].nunique()
    for name in predictions.columns[2:]:
        right = 100 * (predictions[name] == predictions["label"]).mean()
        assert results["metrics"][f"{name}.top1"] == pytest.approx(right, abs=1e-3)
        counts = pd.crosstab(predictions["label"], predictions[name])
        for label, percent in results["per_class"][name].items():
            found = counts.loc[label, label] if label in counts else 0
            assert percent == pytest.approx(100 * found / counts.loc[label].sum(), abs=1e-3)


def test_results_count_the_listed_clips_and_why_some_were_left_out(project, params):
    """One listed clip of each split cannot be used; a third one is unusable in fold a only as a training clip."""
    whole = manifests.read_manifest(project / "manifest.csv")
    table = whole.all_rows.assign(fold=["a" if number % 2 else "b" for number in range(60)])
    for split, reasons in {
        "test": ["too short: 0.20 s of 1 s", "too short: 0.31 s of 1 s"],
        "train": ["missing"],
    }.items():
        places = table.index[table["split"] == split][: len(reasons)]
        table.loc[places, ["status", "reason"]] = [["unusable", reason] for reason in reasons]
    manifests.write_manifest(project / "incomplete.csv", table)
    found = {}
    for task in ("linear", "folds"):
        out = project / "incomplete" / f"{task}.json"
        evaluate.run(params, project / "incomplete.csv", project / "run", task, out)
        found[task] = json.loads(out.read_text())
    assert found["linear"]["clips"] == {
        "train": 39,
        "test": 18,
        "listed_train": 40,
        "listed_test": 20,
        "left_out": {"train": {"missing": 1}, "test": {"too short": 2}},
    }
    folds, unusable = found["folds"]["folds"], table["status"] != "ok"
    for fold, part in folds.items():
        tested = table["fold"] == fold
        assert (part["clips"]["test"], part["clips"]["listed_test"]) == ((tested & ~unusable).sum(), tested.sum())
        assert sum(part["clips"]["left_out"]["test"].values()) == (tested & unusable).sum()
    both = found["folds"]["clips"]
    assert (both["test"], both["listed_test"]) == (57, 60)
    assert both["left_out"]["test"] == {"too short": 2, "missing": 1}


def test_results_say_what_guessing_scores(project, params):
    for task, expected in {"linear": 10, "retrieval": 5}.items():  # ten digits; one of twenty test clips
        out = project / "guessing" / f"{task}.json"
        evaluate.run(params, project / "manifest.csv", project / "run", task, out)
        results = json.loads(out.read_text())
        assert set(results["chance"].values()) == {expected}
        assert results["chance"].keys() == {key.rpartition(".")[0] for key in results["metrics"]}


def test_features_are_those_of_each_clip_seen_alone(project, params):
    recipe = recipe_of(params, "xkd")
    clips = job_of(project, params, "linear").features("test")
    store, views = open_clips(project / "manifest.csv", "test"), EvalViews(recipe)
    for index in (0, 7, 19):
        view = views(store, index)
        for (owner, modality), encoder in load_encoders(project / "run").items():
            with torch.no_grad():
                tokens = encoder(view[modality][0][None])
            np.testing.assert_allclose(clips.outputs[owner, modality][index, 0], tokens[0, 1:].mean(0), atol=1e-5)


def job_of(project, params, task, run="run"):
    """What the stage makes of a task."""
    return EvaluationJob(
        encoders=load_encoders(project / run),
        heads=load_heads(project / run),
        weights=weights_files(project / run),
        recipe=with_views(recipe_of(params, "xkd"), params, task),
        seed=0,
        manifest=manifests.read_manifest(project / "manifest.csv"),
        path=project / "manifest.csv",
        dataset="talking_digits",
        task=params.tasks[task],
        settings=protocol(params, task),
        batch_size=params.evaluate.batch_size,
    )


def test_tasks_share_features_and_other_views_are_extracted_anew(project, params, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "FEATURES", tmp_path / "features")
    extracted = []
    loader = EvaluationJob.loader
    monkeypatch.setattr(
        EvaluationJob, "loader", lambda job, *arguments: extracted.append(arguments) or loader(job, *arguments)
    )

    def passes(task):
        extracted.clear()
        evaluate.run(params, project / "manifest.csv", project / "run", task, tmp_path / f"{task}.json")
        return len(extracted)

    assert [passes(task) for task in ("linear", "layer", "retrieval")] == [2, 0, 0]
    assert passes("several_views") == 3
    assert passes("enlarged_probe") == 2
    assert passes("linear") == 0


def test_features_that_a_job_of_their_own_extracted_are_those_of_the_evaluation(project, params, monkeypatch, tmp_path):
    manifest, run, out = project / "manifest.csv", project / "run", tmp_path / "marker.json"
    metrics = []
    for folder in ("together", "apart"):
        monkeypatch.setattr(runs, "FEATURES", tmp_path / folder)
        if folder == "apart":
            features.run(params, manifest, run, "several_views", out)
            monkeypatch.setattr(EvaluationJob, "loader", None)  # nothing is left to extract
            features.run(params, manifest, run, "several_views", out)
        evaluate.run(params, manifest, run, "several_views", tmp_path / "several_views.json")
        metrics.append(json.loads((tmp_path / "several_views.json").read_text())["metrics"])
    assert metrics[0] == metrics[1]
    marker = json.loads(out.read_text())
    assert [(part["clips"], Path(part["folder"]).is_dir()) for part in marker["features"]] == [(40, True)] * 2 + [
        (20, True)
    ]
    assert {key for part in marker["features"] for key in part["origins"]} == {
        f"{owner}.{modality}" for owner in ("student", "teacher") for modality in ("video", "audio")
    }
    with pytest.raises(UserError, match="task 'enlarged': protocol 'finetune' trains the encoders"):
        features.run(params, manifest, run, "enlarged", tmp_path / "other.json")
    with pytest.raises(UserError, match="already exists"):
        features.run(params, manifest, run, "linear", out)


def test_features_of_other_weights_or_clips_are_not_taken(project, params, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "FEATURES", tmp_path)
    recipe = recipe_of(params, "xkd")
    before = job_of(project, params, "linear").features("test")
    save_encoders(build_networks(recipe, 1), recipe, 0, project / "other")
    seal(project / "other")
    after = job_of(project, params, "linear", "other").features("test")
    for key, values in before.outputs.items():
        assert not np.allclose(values, after.outputs[key])


def test_retrieval_by_hand(project, params, tmp_path):
    """Heads on features, modality means taken off, cosine: computed here in another way."""
    evaluate.run(params, project / "manifest.csv", project / "run", "retrieval", tmp_path / "out.json")
    results = json.loads((tmp_path / "out.json").read_text())
    predictions = pd.read_csv(tmp_path / "out.predictions.csv", dtype=str)
    job, heads = job_of(project, params, "retrieval"), load_heads(project / "run")
    train, test = job.features("train"), job.features("test")
    vectors = {}
    for modality in ("video", "audio"):
        head = heads["student", modality]
        with torch.no_grad():
            logits, mean = (head(torch.tensor(p.outputs["student", modality][:, 0])) for p in (test, train))
        vectors[modality] = logits - mean.mean(0)
    for query, other in (("video", "audio"), ("audio", "video")):
        similarity = torch.cosine_similarity(vectors[query][:, None], vectors[other][None], dim=-1)
        ranks = (similarity >= similarity.diagonal()[:, None]).sum(1)
        name = f"student.{query}.retrieval"
        for k in (1, 5, 10):
            expected = 100 * (ranks <= k).float().mean().item()
            assert results["metrics"][f"{name}.recall{k}"] == pytest.approx(expected, abs=1e-3)
        assert predictions[name].tolist() == test.ids[similarity.argmax(1)].tolist()
    assert results["chosen"] == {f"{owner}.retrieval.space": "heads" for owner in ("student", "teacher")}


def test_retrieval_by_label_finds_more_than_by_clip(project, params, tmp_path):
    metrics = []
    for task in ("retrieval", "same_label"):
        evaluate.run(params, project / "manifest.csv", project / "run", task, tmp_path / "out.json", force=True)
        metrics.append(json.loads((tmp_path / "out.json").read_text())["metrics"])
    assert {key.split(".")[0] for key in metrics[1]} == {"student"}
    for query in ("video", "audio"):
        clip, label = (part[f"student.{query}.retrieval.recall10"] for part in metrics)
        assert clip < label


def test_run_without_heads_is_searched_by_features_and_one_of_one_modality_is_refused(project, params, tmp_path):
    for ablation in ("ae", "recon_video"):
        recipe = recipe_of(params, ablation)
        save_encoders(build_networks(recipe, 0), recipe, 0, tmp_path / ablation)
        seal(tmp_path / ablation)
    evaluate.run(params, project / "manifest.csv", tmp_path / "ae", "retrieval", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["chosen"] == {"student.retrieval.space": "features"}
    with pytest.raises(UserError, match="recon_video has no pair of encoders"):
        evaluate.run(params, project / "manifest.csv", tmp_path / "recon_video", "retrieval", tmp_path / "other.json")


@pytest.mark.parametrize("task", ["enlarged", "enlarged_probe"])
def test_other_resolution_and_length_than_in_pretraining(project, params, task, tmp_path):
    job = job_of(project, params, task)
    batch = next(iter(job.loader(["video", "audio"], "test")))
    assert batch.views["video"][0].shape[2:] == (8, 48, 48)
    assert batch.views["audio"][0].shape[2:] == (40, 48)
    evaluate.run(params, project / "manifest.csv", project / "run", task, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["clips"]["test"] == 20


def test_confusions_are_those_of_the_predictions(project, params, tmp_path):
    from sklearn.metrics import confusion_matrix

    evaluate.run(params, project / "manifest.csv", project / "run", "linear", tmp_path / "out.json")
    predictions = pd.read_csv(tmp_path / "out.predictions.csv", dtype=str)
    confusions = pd.read_csv(tmp_path / "out.confusion.csv", dtype={"label": str, "predicted": str})
    labels = sorted(set(predictions["label"]))
    for name in predictions.columns[2:]:
        part = confusions[confusions["method"] == name]
        ours = part.pivot_table(index="label", columns="predicted", values="clips", fill_value=0)
        ours = ours.reindex(index=labels, columns=labels, fill_value=0).to_numpy()
        np.testing.assert_array_equal(ours, confusion_matrix(predictions["label"], predictions[name], labels=labels))


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
    rows = manifests.read_manifest(project / "manifest.csv").all_rows
    manifests.write_manifest(folder / "manifest.csv", rows.assign(fold=["ab"[i % 2] for i in range(len(rows))]))
    note(folder / "manifest.csv")
    return folder


@pytest.mark.parametrize("task", ["folds", "folds_finetuned"])
def test_folds_are_evaluated_one_by_one_and_averaged(folded, params, task, tmp_path):
    evaluate.run(params, folded / "manifest.csv", folded / "run", task, tmp_path / "out.json")
    results = json.loads((tmp_path / "out.json").read_text())
    assert results["task"] == task
    assert set(results["folds"]) == {"a", "b"}
    predictions = pd.read_csv(tmp_path / "out.predictions.csv", dtype=str)
    rows = manifests.read_manifest(folded / "manifest.csv").rows.set_index("id")
    for fold, part in predictions.groupby("fold"):
        assert sorted(part["id"]) == sorted(rows.index[rows["fold"] == fold])
    for name, mean in results["metrics"].items():
        each = [results["folds"][fold]["metrics"][name] for fold in "ab"]
        assert mean == pytest.approx(np.mean(each), abs=1e-3)
        assert results["spread"][name] == pytest.approx(np.std(each, ddof=1), abs=1e-3)
    right = (predictions["label"] == predictions[predictions.columns[2]]).groupby(predictions["fold"]).mean()
    assert results["metrics"][f"{predictions.columns[2]}.top1"] == pytest.approx(100 * right.mean(), abs=1e-3)


def test_over_folds_clips_and_items_count_once(folded, params, tmp_path):
    evaluate.run(params, folded / "manifest.csv", folded / "run", "folds", tmp_path / "out.json")
    results, rows = (
        json.loads((tmp_path / "out.json").read_text()),
        manifests.read_manifest(folded / "manifest.csv").rows,
    )
    assert results["clips"]["train"] == results["clips"]["test"] == len(rows) == 60
    assert results["items"] == {m: rows[f"{m}_source"].nunique() for m in ("video", "audio")}
    for fold, part in results["folds"].items():
        tested = rows[rows["fold"] == fold]
        assert part["clips"]["train"] == 60 - len(tested)
        assert part["clips"]["test"] == len(tested)
        assert part["items"] == {m: tested[f"{m}_source"].nunique() for m in ("video", "audio")}


@pytest.fixture(scope="module")
def joined(project, tmp_path_factory):
    """The same clips with several labels each; "never" is on test clips alone, "untested" on training clips alone."""
    folder = tmp_path_factory.mktemp("joined")
    for entry in project.iterdir():
        (folder / entry.name).symlink_to(entry)
    (folder / "manifest.csv").unlink()
    rows = manifests.read_manifest(project / "manifest.csv").all_rows
    third, tested = np.arange(len(rows)) % 3 == 0, rows["split"] == "test"
    other = np.where(third, np.where(tested, "never", "untested"), np.where(rows["label"] > "5", "high", "low"))
    manifests.write_manifest(
        folder / "manifest.csv", rows.assign(label=[";".join(two) for two in zip(rows["label"], other, strict=True)])
    )
    note(folder / "manifest.csv")
    return folder


@pytest.mark.parametrize("task", ["linear", "layer", "attentive", "finetune"])
def test_figures_of_several_labels_come_from_the_scores_in_the_file(joined, params, task, tmp_path):
    from sklearn.metrics import average_precision_score

    evaluate.run(params, joined / "manifest.csv", joined / "run", task, tmp_path / "out.json")
    results, scores = json.loads((tmp_path / "out.json").read_text()), pd.read_parquet(tmp_path / "out.scores.parquet")
    assert set(scores["method"]) == {key.removesuffix(".map") for key in results["metrics"]}
    assert any("(never)" in note for note in results["notes"])
    assert any("untested" in note for note in results["notes"])
    for method, part in scores.groupby("method"):
        has = part["label"].str.get_dummies(";")
        found = part[[f"score.{name}" for name in has]].fillna(0)
        each = 100 * average_precision_score(has, found, average=None)
        assert results["metrics"][f"{method}.map"] == pytest.approx(each.mean(), abs=6e-5)
        assert results["per_class"][method] == pytest.approx(dict(zip(has, each, strict=True)), abs=6e-5)
        low, high = results["intervals"][f"{method}.map"]
        assert 0 < low < results["metrics"][f"{method}.map"] < high <= 100
        assert results["per_class_intervals"][method].keys() == results["per_class"][method].keys()
        assert part["score.never"].isna().all()
        assert results["per_class"][method]["never"] == pytest.approx(100 * has["never"].mean(), abs=1e-3)


def test_figures_of_one_label_come_from_the_scores_in_the_file(project, params, tmp_path):
    for task in ("svm", "retrieval"):
        evaluate.run(params, project / "manifest.csv", project / "run", task, tmp_path / f"{task}.json")
    results = json.loads((tmp_path / "svm.json").read_text())
    for method, part in pd.read_parquet(tmp_path / "svm.scores.parquet").groupby("method"):
        best = part.filter(like="score.").idxmax(axis=1).str.removeprefix("score.")
        assert results["metrics"][f"{method}.top1"] == pytest.approx(100 * (best == part["label"]).mean(), abs=1e-3)
    results = json.loads((tmp_path / "retrieval.json").read_text())
    for method, part in pd.read_parquet(tmp_path / "retrieval.scores.parquet").groupby("method"):
        assert results["metrics"][f"{method}.recall5"] == pytest.approx(100 * (part["rank"] <= 5).mean(), abs=1e-3)


def test_figures_of_few_shots_are_means_over_draws_and_come_from_the_votes_in_the_file(project, params, tmp_path):
    evaluate.run(params, project / "manifest.csv", project / "run", "few_shot", tmp_path / "out.json")
    results = json.loads((tmp_path / "out.json").read_text())
    pairs = [(o, m) for o in ("student", "teacher") for m in ("video", "audio", "both")]
    assert set(results["metrics"]) == {f"{o}.{m}.{k}_shot.top1" for o, m in pairs for k in (1, 3)}
    for method, part in pd.read_parquet(tmp_path / "out.scores.parquet").groupby("method"):
        draws, key = results["draws"][method], f"{method}.top1"
        votes = [row[f"score.{row['label']}"] for _, row in part.iterrows()]
        assert results["metrics"][key] == pytest.approx(100 * np.mean(votes), abs=1e-3)
        assert results["metrics"][key] == pytest.approx(np.mean(draws), abs=1e-3)
        bounds = scipy.stats.t.interval(0.95, 2, np.mean(draws), scipy.stats.sem(draws)) if np.ptp(draws) else draws[:2]
        assert results["intervals"][key] == pytest.approx(bounds, abs=1e-3)
        of_classes = part.groupby("label").size() @ pd.Series(results["per_class"][method]) / len(part)
        assert results["metrics"][key] == pytest.approx(of_classes, abs=1e-3)


def test_unknown_fold_names_the_known_ones(folded, params, tmp_path):
    other = params.model_copy(update={"tasks": {"x": params.tasks["folds"].model_copy(update={"folds": ("c",)})}})
    with pytest.raises(UserError, match="no clip is tested in fold 'c'; folds: a, b"):
        evaluate.run(other, folded / "manifest.csv", folded / "run", "x", tmp_path / "out.json")


def test_several_views_are_averaged_as_scores(project, params, tmp_path, monkeypatch):
    """Scores of a test clip: the mean over its views of what a machine fitted on all training views says."""
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    seen = {}
    features = EvaluationJob.features

    def spy(job, split, augmented=None):
        seen[split, augmented] = features(job, split, augmented)
        return seen[split, augmented]

    monkeypatch.setattr(EvaluationJob, "features", spy)
    evaluate.run(params, project / "manifest.csv", project / "run", "several_views", tmp_path / "out.json")
    key = ("student", "video")
    test = seen["test", None].outputs[key]
    assert test.shape[:2] == (20, 9)
    assert seen["test", None].outputs["student", "audio"].shape[:2] == (20, 3)
    parts = [seen["train", i] for i in range(2)]
    x, y = np.concatenate([part.outputs[key][:, 0] for part in parts]), np.tile(parts[0].labels, 2)
    assert not np.allclose(parts[0].outputs[key], parts[1].outputs[key])
    scaler = StandardScaler().fit(x.astype(float))
    model = LinearSVC(C=0.01, max_iter=1000, random_state=0).fit(scaler.transform(x.astype(float)), y)
    mean = np.mean([model.decision_function(scaler.transform(test[:, v].astype(float))) for v in range(9)], axis=0)
    predictions = pd.read_csv(tmp_path / "out.predictions.csv", dtype=str)["student.video.svm"]
    assert (predictions == model.classes_[mean.argmax(1)]).mean() > 0.9  # examples come in another order


def test_tokens_of_all_views_are_kept_and_their_mean_is_the_feature(project, params, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "FEATURES", tmp_path / "features")
    for task in ("several_views", "tokens_of_views"):
        evaluate.run(params, project / "manifest.csv", project / "run", task, tmp_path / f"{task}.json")
    width = params.model.width
    for name, shape in {"student_video": (20, 9, 32, width), "teacher_audio": (20, 3, 24, width)}.items():
        (of_means,) = (tmp_path / "features").rglob(f"*-test-*/{name}.f32")
        (of_tokens,) = (tmp_path / "features").rglob(f"*-test-*-tokens/{name}.f16")
        tokens = np.fromfile(of_tokens, np.float16).reshape(shape).astype(np.float32)
        means = np.fromfile(of_means, np.float32).reshape(*shape[:2], shape[3])
        np.testing.assert_allclose(tokens.mean(2), means, atol=1e-3)
    metrics = json.loads((tmp_path / "tokens_of_views.json").read_text())["metrics"]
    assert {f"student.{m}.attentive.top1" for m in ("video", "audio", "both")} < metrics.keys()


def test_shuffled_labels_give_chance(project, params, tmp_path, monkeypatch):
    """Nothing leaks from test clips into the probes: labels without meaning are not found."""
    rows = manifests.read_manifest(project / "manifest.csv").all_rows
    generator = np.random.default_rng(0)
    folder = tmp_path / "shuffled"
    folder.mkdir()
    for entry in project.iterdir():
        (folder / entry.name).symlink_to(entry)
    (folder / "manifest.csv").unlink()
    hits = []
    for attempt in range(3):
        mixed = rows.assign(label=generator.permutation(rows["label"].to_numpy()))
        manifests.write_manifest(folder / "manifest.csv", mixed)
        note(folder / "manifest.csv")
        evaluate.run(params, folder / "manifest.csv", folder / "run", "linear", tmp_path / f"{attempt}.json")
        metrics = json.loads((tmp_path / f"{attempt}.json").read_text())["metrics"]
        hits += [metrics[f"student.{modality}.linear.top1"] for modality in ("video", "audio")]
    # Ten labels, 20 test clips, six probes: four standard errors around 10 %.
    assert abs(np.mean(hits) - 10) < 4 * 100 * np.sqrt(0.1 * 0.9 / (20 * len(hits)))
