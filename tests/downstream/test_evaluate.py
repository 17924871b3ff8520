"""The stage `evaluate` with real encoders; `test_pipeline` has the real loader too."""

import json
import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from downstream_fakes import LABELS, Tracking, rows
from run_folders import seal

from xkd import runs
from xkd.downstream import finetune, job, linear, notes
from xkd.errors import UserError
from xkd.params import recipe as recipe_of
from xkd.settings import Params
from xkd.stages import evaluate
from xkd.training.build import build_networks
from xkd.training.export import save_encoders

SETTINGS = {
    "dataset": "digits",
    "seeds": [0],
    "datasets": {"digits": {"kind": "manifest"}},
    "clips": {"seconds": 1, "fps": 4, "size": 16, "pack": True},
    "logmel": {"n_mels": 8},
    "views": {
        "video_global": {"frames": 4, "size": 16},
        "video_local": {"frames": 2, "size": 8},
        "audio_global": {"frames": 16},
        "audio_local": {"frames": 8},
    },
    "model": {
        "width": 16, "depth": 2, "heads": 2, "video_patch": [2, 8, 8], "audio_patch": [8, 8],
        "decoder": {"width": 8, "depth": 1, "heads": 1}, "head": {"hidden": 8, "bottleneck": 4, "out": 8},
    },
    "objective": {"mask_audio": 0.5},  # a view has 2 patches
    "training": {"batch_size": 8},
    "evaluate": {"finetune": {"epochs": 8, "batch_size": 16, "learning_rate": 0.003}},
    "tasks": {
        "linear": {"protocol": "linear"}, "finetune": {"protocol": "finetune"}, "svm": {"protocol": "svm"},
        "layer": {"protocol": "layer"}, "retrieval": {"protocol": "retrieval"},
    },
    "report": {"baseline": "xkd"},
    "ablations": {
        "xkd": {"hypothesis": "all terms"},
        "recon_video": {
            "hypothesis": "video alone",
            "changes": {"objective": {"distillation": 0, "alignment": 0, "reconstruct": ["video"]}},
        },
    },
}  # fmt: skip
PARAMS = Params.model_validate(SETTINGS)
TRAIN, TEST = (
    rows(48, scans=12),
    rows(30, scans=6).assign(
        id=lambda table: "test" + table["id"], video_source=lambda table: "test" + table["video_source"]
    ),
)

SPLITS = {"train": TRAIN, "test": TEST}


class Views:
    """Batches of views of a split: brightness and level tell the label, the rest is noise."""

    def __init__(self, split, batch_size):
        self.rows, self.batch_size = SPLITS[split], batch_size
        self.classes = sorted({*LABELS, *SPLITS["train"]["label"], *SPLITS["test"]["label"]})

    def close(self):
        pass

    def set_epoch(self, epoch, first=0):
        pass

    def __len__(self):
        return math.ceil(len(self.rows) / self.batch_size)

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        for start in range(0, len(self.rows), self.batch_size):
            part = self.rows.iloc[start : start + self.batch_size]
            labels = torch.tensor([self.classes.index(label) for label in part["label"]])
            video = labels.view(-1, 1, 1, 1, 1) + 0.3 * torch.randn(len(part), 3, 4, 16, 16, generator=generator)
            audio = labels.view(-1, 1, 1, 1) + 0.3 * torch.randn(len(part), 1, 8, 16, generator=generator)
            yield SimpleNamespace(ids=part["id"].tolist(), labels=labels, views={"video": [video], "audio": [audio]})


class FakeManifest:
    hash = "abc123"

    @property
    def rows(self):
        every = pd.concat([rows.assign(split=name) for name, rows in SPLITS.items()])
        return every.assign(has_video=True, has_audio=True)

    def split(self, name, fold=None):
        rows = SPLITS[name]
        return SimpleNamespace(rows=rows, ids=rows["id"].tolist(), all_rows=rows.assign(status="ok", reason=""))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Prepared clips, a run of each ablation, and stand-ins for the loader, the manifest and MLflow."""
    for ablation in SETTINGS["ablations"]:
        recipe = recipe_of(PARAMS, ablation)
        run = tmp_path / "runs" / ablation
        save_encoders(build_networks(recipe, 3), recipe, 3, run)
        (run / "mlflow.json").write_text(json.dumps({"run_id": f"id-of-{ablation}"}))
        seal(run)
    summary = {"dataset": "digits", "clips": PARAMS.clips.model_dump(mode="json")}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    for module in (job, finetune):
        monkeypatch.setattr(module, "eval_loader", lambda recipe, path, split, size, *_, **__: Views(split, size))
    monkeypatch.setattr(finetune, "train_loader", lambda *_, batch_size, **__: Views("train", batch_size))
    monkeypatch.setattr(evaluate.manifests, "read_manifest", lambda path: FakeManifest())
    monkeypatch.setattr(runs, "FEATURES", tmp_path / "features")
    monkeypatch.setattr(runs, "CHECKPOINTS", tmp_path / "checkpoints")
    tracking = Tracking()
    monkeypatch.setattr(evaluate, "tracking", tracking)

    def run(ablation="xkd", protocol="linear", params=PARAMS):
        out = tmp_path / "evals" / ablation / f"{protocol}.json"
        evaluate.run(params, tmp_path / "manifest.csv", tmp_path / "runs" / ablation, protocol, out)
        return json.loads(out.read_text())

    return SimpleNamespace(run=run, folder=tmp_path, tracking=tracking)


def test_linear_protocol_reports_every_encoder_and_both_modalities(project):
    results = project.run()
    names = [
        f"{o}.{m}.{p}" for o in ("student", "teacher") for m in ("video", "audio", "both") for p in ("linear", "knn")
    ]
    assert {key for key in results["metrics"] if key.endswith(".top1")} == {f"{name}.top1" for name in names}
    assert {k: results[k] for k in ("dataset", "ablation", "seed", "protocol", "manifest", "clips", "items")} == {
        "dataset": "digits",
        "ablation": "xkd",
        "seed": 3,
        "protocol": "linear",
        "manifest": "abc123",
        "clips": {
            "train": 48,
            "test": 30,
            "listed_train": 48,
            "listed_test": 30,
            "left_out": {"train": {}, "test": {}},
        },
        "items": {"video": 6, "audio": 30},
    }
    assert results["chosen"].keys() == {f"{name}.C" for name in names if name.endswith("linear")}
    assert set(results["chosen"].values()) <= set(PARAMS.evaluate.linear.C)
    for key, (low, high) in results["intervals"].items():
        assert 0 <= low <= results["metrics"][key] <= high <= 100
    assert "seconds" not in results


def test_predictions_give_the_reported_accuracies(project):
    results = project.run()
    folder = project.folder / "evals" / "xkd"
    predictions = pd.read_csv(folder / "linear.predictions.csv", dtype=str)
    assert predictions["id"].tolist() == TEST["id"].tolist()
    assert predictions["label"].tolist() == TEST["label"].tolist()
    columns = [key.removesuffix(".top1") for key in results["metrics"] if key.endswith(".top1")]
    assert list(predictions.columns) == ["id", "label", *columns]
    for name in columns:
        right = (predictions[name] == predictions["label"]).mean()
        assert results["metrics"][f"{name}.top1"] == pytest.approx(100 * right)
    assert json.loads((folder / "linear.times.json").read_text())["seconds"] > 0


def test_labels_in_the_pixels_are_found(project):
    results = project.run()
    assert results["metrics"]["student.both.linear.top1"] > 90


def test_finetuning_repeats_and_learns(project):
    first = project.run(protocol="finetune")
    assert first["metrics"]["student.video.finetune.top1"] > 80
    assert {k.split(".")[0] for k in first["metrics"]} == {"student"}
    curves = project.tracking.runs["xkd-evaluate", "evaluate/digits/xkd/seed3/finetune"]["curves"]
    assert [epoch for epoch, _ in curves] == list(range(8))
    assert curves[-1][1]["loss_video"] < curves[0][1]["loss_video"]
    assert not list(project.folder.rglob("*.pt")), "the results are there, so checkpoints are not needed any more"
    assert first == project.run(protocol="finetune")


@pytest.mark.parametrize("protocol", ["linear", "finetune"])
def test_modality_that_a_run_lacks_is_absent(project, protocol):
    metrics = project.run("recon_video", protocol)["metrics"]
    assert {tuple(key.split(".")[:2]) for key in metrics} == {("student", "video")}


def test_accuracies_are_shown_on_the_pretraining_run_too(project):
    results = project.run()
    own = project.tracking.runs["xkd-evaluate", "evaluate/digits/xkd/seed3/linear"]
    assert own == project.tracking.runs["id-of-xkd"]
    assert own["student.video.linear"] == round(results["metrics"]["student.video.linear.top1"], 2)
    assert not any(name.endswith(("top1", "map")) for name in own)


def test_another_data_set_does_not_replace_figures_of_the_runs_own(project):
    summary = {"dataset": "elsewhere", "clips": PARAMS.clips.model_dump(mode="json")}
    (project.folder / "summary.json").write_text(json.dumps(summary))
    assert project.run()["dataset"] == "elsewhere"
    assert all(name.startswith("elsewhere.") for name in project.tracking.runs["id-of-xkd"])


def test_clips_of_other_settings_are_refused(project):
    summary = {"dataset": "digits", "clips": {**PARAMS.clips.model_dump(mode="json"), "fps": 8.0, "pack": False}}
    (project.folder / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"clips.fps is 8.0, but xkd was trained with 4.0"):
        project.run()


@pytest.mark.parametrize("name", ["config.json", "encoders"])
def test_unfinished_run_is_explained_and_leaves_earlier_results(project, name):
    project.run()
    out = project.folder / "evals" / "xkd" / "linear.json"
    before = out.read_bytes()
    (project.folder / "runs" / "xkd" / name).rename(project.folder / "runs" / "xkd" / "elsewhere")
    with pytest.raises(UserError, match="python -m xkd pretrain"):
        project.run()
    assert out.read_bytes() == before


def test_clips_without_labels_are_explained(project, monkeypatch):
    monkeypatch.setitem(SPLITS, "train", TRAIN.assign(label=""))
    with pytest.raises(UserError, match="48 train clips have no label, e.g. clip0000"):
        project.run()


def test_empty_split_is_explained(project, monkeypatch):
    monkeypatch.setitem(SPLITS, "train", TRAIN[:0])
    with pytest.raises(UserError, match="no usable clips in split 'train'"):
        project.run()


def test_unknown_task_names_the_one_that_was_meant(project):
    with pytest.raises(UserError, match="no task 'finetun'; did you mean 'finetune'"):
        project.run(protocol="finetun")


def with_label(rows, label, where):
    """The rows with another label where a condition holds for their own."""
    return rows.assign(label=rows["label"].mask(where(rows["label"]), label))


@pytest.mark.parametrize("protocol", ["linear", "svm", "layer", "finetune"])
def test_one_label_in_training_is_refused_by_every_protocol_that_learns_labels(project, monkeypatch, protocol):
    monkeypatch.setitem(SPLITS, "train", TRAIN.assign(label="cat"))
    with pytest.raises(UserError, match="all 48 training clips have the label 'cat'"):
        project.run(protocol=protocol)
    assert not list(project.folder.glob("evals/**/*.json"))


@pytest.mark.parametrize("protocol", ["linear", "finetune"])
def test_labels_that_training_never_shows_count_as_wrong_and_are_noted(project, monkeypatch, capsys, protocol):
    monkeypatch.setitem(SPLITS, "test", with_label(TEST, "yak", lambda label: label == "owl"))
    results = project.run(protocol=protocol)
    note = "10 of 30 test clips have a label that no training clip has (yak); they count as wrong"
    assert note in results["notes"]
    assert "1 of 3 labels of training are never tested (owl)" in results["notes"]
    assert note in capsys.readouterr().err
    assert max(value for name, value in results["metrics"].items() if name.endswith("top1")) < 67
    assert {per_class["yak"] for per_class in results["per_class"].values()} == {0}


def test_test_clips_of_one_label_are_noted(project, monkeypatch):
    monkeypatch.setitem(SPLITS, "test", TEST.assign(label="cat"))
    assert "all test clips have the label 'cat': a constant guess is right on every clip" in project.run()["notes"]


def test_one_test_clip_is_noted(project, monkeypatch):
    monkeypatch.setitem(SPLITS, "test", TEST[:1])
    assert any(note.startswith("there is 1 test clip") for note in project.run()["notes"])
    assert any("recall at 10 is 100 %" in note for note in project.run(protocol="retrieval")["notes"])


@pytest.mark.parametrize(
    ("test", "kept"),
    [
        (TEST[:1], set()),
        (TEST.assign(video_source="scan", audio_source="tape"), set()),
        (TEST.assign(video_source="scan"), {"audio"}),  # sound without a source of its own is of its video
    ],
)
def test_figures_of_one_clip_or_one_item_have_no_intervals(project, monkeypatch, test, kept):
    monkeypatch.setitem(SPLITS, "test", test)
    results = project.run()
    assert {key.split(".")[1] for key in results["intervals"]} == kept
    assert any("left out where nothing else varies" in n or "have no intervals" in n for n in results["notes"])


@pytest.mark.parametrize("protocol", ["linear", "svm", "layer"])
def test_encoders_that_see_all_clips_alike_are_noted(project, monkeypatch, protocol):
    monkeypatch.setattr(Views, "__iter__", alike)
    results = project.run("recon_video", protocol)
    (note,) = (note for note in results["notes"] if "tells no clip from another" in note and ".knn" not in note)
    assert note.startswith(f"student.video.{protocol}: gives all test clips the same scores")
    assert results["metrics"][f"student.video.{protocol}.top1"] == pytest.approx(100 / 3, abs=1e-3)


def alike(views, real=Views.__iter__):
    """The batches of a split with one and the same clip in them."""
    for batch in real(views):
        batch.views = {name: [torch.ones_like(view) for view in of] for name, of in batch.views.items()}
        yield batch


def test_a_search_that_finds_one_clip_for_all_is_noted(project, monkeypatch):
    monkeypatch.setattr(Views, "__iter__", alike)
    results = project.run(protocol="retrieval")
    assert sum("finds the clip 'testclip0000' for every query" in note for note in results["notes"]) >= 2
    assert results["metrics"]["student.video.retrieval.recall1"] == 0


def test_more_neighbours_than_training_clips_are_noted(project):
    values = {**SETTINGS, "evaluate": {"linear": {"neighbours": 48}}}
    found = project.run(params=Params.model_validate(values))["notes"]
    assert sum("48 nearest neighbours are all 48 training examples" in note for note in found) == 6
    assert sum("knn: gives all test clips the same scores" in note for note in found) == len(found) - 6


@pytest.mark.parametrize("column", ["video_source", "audio_source", "digest"])
def test_test_clips_of_a_training_video_are_noted(project, monkeypatch, column):
    monkeypatch.setitem(SPLITS, "train", TRAIN.assign(**{column: [f"a{i}" for i in range(48)]}))
    monkeypatch.setitem(SPLITS, "test", TEST.assign(**{column: [f"a{i}" if i < 7 else "" for i in range(30)]}))
    assert any(note.startswith("7 of 30 test clips have the ") for note in project.run()["notes"])


def test_notes_are_about_judged_modalities_and_stand_once_for_all_folds():
    rows = pd.DataFrame({"video_source": ["film"] * 2, "audio_source": ["", ""], "digest": ["1", "2"]})
    found = notes.of_clips(rows.assign(video_source="other", digest=["3", "4"]), rows, ["audio"])
    assert found == []
    found = notes.of_clips(rows.assign(video_source="other", digest=["3", "4"]), rows, ["video"])
    assert found == [
        "all test clips have the same video source: intervals are too narrow, or left out where nothing else varies"
    ]
    over = notes.over_folds({"1": ["a", "b"], "2": ["a"], "3": []})
    assert over == ["folds 1, 2: a", "fold 1: b"]


def test_an_evaluation_without_a_flaw_has_no_notes(project):
    assert project.run()["notes"] == project.run(protocol="finetune")["notes"] == []


def test_solver_that_stops_early_is_noted(project):
    values = {**SETTINGS, "evaluate": {"svm": {"max_iter": 1, "C": [1.0]}}}
    found = project.run(protocol="svm", params=Params.model_validate(values))["notes"]
    assert "student.video.svm: the solver stopped before it converged; see evaluate.svm.max_iter" in found


@pytest.mark.parametrize(
    ("protocol", "changes", "key"),
    [
        ("linear", {}, "evaluate.linear.C"),
        ("svm", {}, "evaluate.svm.C"),
        ("svm", {"C": [0.1, 1.0]}, "tasks.svm.changes.C"),
        ("finetune", {"learning_rate": 1000.0}, "tasks.finetune.changes.learning_rate"),
    ],
)
def test_failures_name_the_key_that_holds_the_value(project, monkeypatch, protocol, changes, key):
    monkeypatch.setitem(SPLITS, "train", TRAIN[:3].assign(video_source="one", audio_source="one"))
    values = {**SETTINGS, "tasks": {protocol: {"protocol": protocol, "changes": changes}}}
    with pytest.raises(UserError, match=key):
        project.run(protocol=protocol, params=Params.model_validate(values))


@pytest.mark.parametrize("protocol", ["linear", "finetune", "retrieval"])
def test_features_that_are_not_finite_name_encoder_and_clip(project, monkeypatch, protocol):
    views = Views.__iter__

    def with_an_odd_clip(self):
        for batch in views(self):
            if "testclip0005" in batch.ids:
                batch.views["video"][0][batch.ids.index("testclip0005")] = float("nan")
            yield batch

    monkeypatch.setattr(Views, "__iter__", with_an_odd_clip)
    with pytest.raises(UserError, match="student video: outputs that are not finite for clip testclip0005"):
        project.run(protocol=protocol)
    assert not list(project.folder.glob("evals/**/*.json"))


def test_heads_that_overflow_find_nothing_in_silence(project, monkeypatch):
    load_heads = evaluate.load_heads

    def overflowing(run):
        heads = load_heads(run)
        for parameter in heads["student", "audio"].parameters():
            torch.nn.init.constant_(parameter, 3e38)
        return heads

    monkeypatch.setattr(evaluate, "load_heads", overflowing)
    with pytest.raises(UserError, match="projection head of student audio: outputs that are not finite for clip"):
        project.run(protocol="retrieval")


@pytest.mark.parametrize("text", ["[]", "null", "{}", "{"])
def test_a_damaged_summary_of_the_clips_is_explained(project, tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(UserError, match="summary.json: missing or unreadable; run `python -m xkd prepare"):
        project.run()


def test_a_stopped_evaluation_goes_on_after_the_last_fit(project, monkeypatch):
    """The fourth of six encoders' fits is interrupted; three are not fitted again, and the results are the same."""
    whole, fitted, scored = project.run(protocol="svm"), [], linear.fit_and_score
    assert not list(project.folder.glob("features/**/fits-*"))

    def stopping(examples, settings):
        if len(fitted) == 3:
            fitted.append("stopped")
            raise KeyboardInterrupt
        fitted.append(f"{examples.owner} {examples.modality}")
        return scored(examples, settings)

    monkeypatch.setattr(linear, "fit_and_score", stopping)
    with pytest.raises(KeyboardInterrupt):
        project.run(protocol="svm")
    assert project.run(protocol="svm") == whole
    expected = [f"{owner} {modality}" for owner in ("student", "teacher") for modality in ("video", "audio", "both")]
    assert fitted == [*expected[:3], "stopped", *expected[3:]]
    assert not list(project.folder.glob("features/**/fits-*"))


def test_a_full_disk_loses_no_fit_and_other_settings_take_none(project, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate.evaluations, "write_files", full)
        with pytest.raises(OSError, match="disk full"):
            project.run(protocol="svm")
    fitted, scored = [], linear.fit_and_score
    monkeypatch.setattr(linear, "fit_and_score", lambda *given: fitted.append(given) or scored(*given))
    project.run(protocol="svm", params=Params.model_validate({**SETTINGS, "evaluate": {"svm": {"C": [0.1]}}}))
    assert len(fitted) == 6
    project.run(protocol="svm")
    assert len(fitted) == 6


def test_half_precision_moves_figures_little_and_keeps_half_the_bytes(project):
    sizes, metrics = {}, {}
    for precision in ("float32", "bfloat16"):
        values = {**SETTINGS, "evaluate": {"precision": precision, "svm": {"C": [0.01]}}}
        metrics[precision] = project.run(protocol="svm", params=Params.model_validate(values))["metrics"]
        files = project.folder.glob("features/**/*.f*")
        sizes[precision] = {file.with_suffix("").name + file.parent.name: file.stat().st_size for file in files}
    assert {name: size // 2 for name, size in sizes["float32"].items()} == sizes["bfloat16"], "nothing else is left"
    for name, value in metrics["float32"].items():
        assert metrics["bfloat16"][name] == pytest.approx(value, abs=10)
