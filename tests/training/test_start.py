"""Rows that start from encoders of another run."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from xkd.encoders import folder
from xkd.errors import UserError
from xkd.params import merge
from xkd.settings import Params
from xkd.stages import evaluate, pretrain

MINIATURE = Path(__file__).parents[2] / "workflow" / "presets" / "miniature.yaml"


def settings(**training) -> Params:
    """The miniature, with one more row."""
    row = {"hypothesis": "Given encoders.", "changes": training}
    return Params.model_validate(merge(yaml.safe_load(MINIATURE.read_text()), {"ablations": {"given": row}}))


@pytest.fixture(scope="module")
def root(tmp_path_factory, miniature):
    """Prepared clips and a trained run."""
    root = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copytree(miniature, "data")
        pretrain.run(settings(), Path("data/manifest.csv"), "xkd", 0, Path("trained"))
    return root


@pytest.fixture(autouse=True)
def inside(root, monkeypatch):
    monkeypatch.chdir(root)


def encoder(run: str, name: str) -> dict:
    return folder.load(Path(run, "encoders", name))[0].state_dict()


def equal(one: dict, other: dict) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


def run(out: str, **training) -> dict:
    pretrain.run(settings(training=training), Path("data/manifest.csv"), "given", 5, Path(out))
    return json.loads(Path(out, "metrics.json").read_text())


def test_given_encoders_are_evaluated_as_they_are():
    weights = ["trained/encoders/video_teacher", "trained/encoders/audio_student"]
    metrics = run("given", mode="none", weights=weights)
    assert metrics["steps"] == 0
    assert metrics["trainable_parameters"] == 0
    assert {column["title"] for column in metrics["columns"]} >= {"reconstruction, video", "centre norm, audio"}
    assert equal(encoder("given", "video_teacher"), encoder("trained", "video_teacher"))
    assert equal(encoder("given", "audio_student"), encoder("trained", "audio_student"))
    assert len(list(Path("given/encoders").iterdir())) == 2
    evaluate.run(settings(), Path("data/manifest.csv"), Path("given"), "linear", Path("given.json"))
    evaluate.run(settings(), Path("data/manifest.csv"), Path("trained"), "linear", Path("trained.json"))
    given, trained = (json.loads(Path(name).read_text())["metrics"] for name in ("given.json", "trained.json"))
    assert given["teacher.video.linear.top1"] == trained["teacher.video.linear.top1"]
    assert given["student.audio.linear.top1"] == trained["student.audio.linear.top1"]


def test_given_teachers_are_called_teachers_everywhere():
    """In the run's files, in every column of an evaluation, and with the origin and licence that they came with."""
    weights = []
    for modality in ("video", "audio"):
        network, config = folder.load(Path(f"trained/encoders/{modality}_teacher"))
        told = {"origin": f"released file XKD_pretext_kinetics400_{modality}_teacher", "licence": "CC BY-NC 4.0 (x)"}
        weights.append(f"released/{modality}")
        folder.save(network, config.model_copy(update=told), Path(weights[-1]))
    metrics = run("teachers", mode="none", weights=weights)
    assert metrics["given"] == {m: f"released file XKD_pretext_kinetics400_{m}_teacher" for m in ("video", "audio")}
    for modality in ("video", "audio"):
        config = json.loads(Path("teachers/encoders", f"{modality}_teacher", "config.json").read_text())
        assert (config["owner"], config["origin"]) == ("teacher", metrics["given"][modality])
        assert config["licence"] == "CC BY-NC 4.0 (x)"
    for task in ("linear", "finetune"):
        evaluate.run(settings(), Path("data/manifest.csv"), Path("teachers"), task, Path(f"{task}.json"))
        results = json.loads(Path(f"{task}.json").read_text())
        assert {key.split(".")[0] for key in results["metrics"]} == {"teacher"}
        assert {key.split(".")[1] for key in results["metrics"]} >= {"video", "audio"}
    run("from-teachers", epochs=1, weights=weights)
    further = json.loads(Path("from-teachers/encoders/video_student/config.json").read_text())
    assert further["owner"] == "student"
    assert further["licence"] == "CC BY-NC 4.0 (x)"
    assert further["origin"].startswith(
        "trained with xkd on miniature: ablation given, seed 5, starting from: released"
    )


def test_one_encoder_alone_makes_a_row_of_one_modality():
    run("alone", mode="none", weights=["trained/encoders/audio_student"])
    assert [path.name for path in Path("alone/encoders").iterdir()] == ["audio_student"]


def test_training_goes_on_from_given_encoders():
    weights = ["trained/encoders/video_student", "trained/encoders/audio_student"]
    run("further", epochs=1, learning_rate=1e-9, warmup_epochs=0, weight_decay=0, weights=weights)
    for name in ("video_student", "video_teacher", "audio_student", "audio_teacher"):
        start = encoder("trained", name.split("_")[0] + "_student")
        reached = encoder("further", name)
        assert all(torch.allclose(reached[key], start[key], atol=1e-6) for key in start)


def test_encoders_that_do_not_fit_are_refused():
    video = "trained/encoders/video_student"
    for training, message in (
        ({"mode": "none", "weights": ["nowhere"]}, "nowhere/config.json: missing; name the folder of an encoder"),
        ({"mode": "none", "weights": [video, "trained/encoders/video_teacher"]}, "two encoders of one modality"),
    ):
        with pytest.raises(UserError, match=message):
            run("refused", **training)
    for group, message in (
        ({"model": {"width": 32}}, "width is 16, the settings ask for 32"),
        ({"views": {"video_global": {"frames": 4}}}, "grid is .* the settings ask for"),
    ):
        changes = {"training": {"mode": "none", "weights": [video]}, **group}
        with pytest.raises(UserError, match=message):
            pretrain.run(settings(**changes), Path("data/manifest.csv"), "given", 0, Path("refused"))
    shared = {"training": {"weights": [video, "trained/encoders/audio_student"]}, "model": {"share": "students"}}
    with pytest.raises(UserError, match="these encoders have different ones"):
        pretrain.run(settings(**shared), Path("data/manifest.csv"), "given", 0, Path("refused"))
    assert not Path("refused").exists()
