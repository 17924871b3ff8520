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
from xkd.params import merge
from xkd.params import recipe as recipe_of
from xkd.settings import Params
from xkd.stages import download, evaluate, prepare
from xkd.training.build import build_networks
from xkd.training.export import load_encoders, save_encoders

CHANGES = {
    "dataset": "talking_digits",
    "datasets": {"talking_digits": {"kind": "talking_digits", "train_clips": 40, "test_clips": 20}},
    "evaluate": {"finetune": {"epochs": 1, "batch_size": 16}},
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


@pytest.mark.parametrize("protocol", ["linear", "finetune"])
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


def test_features_are_those_of_each_clip_seen_alone(project, params):
    recipe, path = recipe_of(params, "xkd"), project / "manifest.csv"
    encoders = load_encoders(project / "run")
    job = Job(encoders, recipe, 0, manifests.read(path), path, params.evaluate)
    clips = job.extract({key: encoder.features for key, encoder in encoders.items()}, "test")
    store, views = open_clips(path, "test"), EvalViews(recipe)
    for index in (0, 7, 19):
        view = views(store, index)
        for (owner, modality), encoder in encoders.items():
            with torch.no_grad():
                tokens = encoder(view[modality][0][None])
            np.testing.assert_allclose(clips.outputs[owner, modality][index], tokens[0, 1:].mean(0), atol=1e-5)


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
