"""An augmentation of a plugin: from params.yaml to the batches of the loader."""

from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from clip_fakes import FakeClips, recipe

from xkd import params, plugins, registry
from xkd.data import loader
from xkd.data.views import EvalViews, TrainViews
from xkd.errors import UserError
from xkd.modalities.base import clip_generator
from xkd.settings import Training

PLUGIN = Path(__file__).parents[1] / "plugins" / "noise.py"


@pytest.fixture(autouse=True)
def plugin():
    plugins.load([str(PLUGIN)])
    yield
    registry.augmentations.forget(PLUGIN)
    plugins._loaded.pop(PLUGIN)


def noisy(**training):
    return recipe(
        {"jitter": (0.4, 0.4, 0, 0)},
        audio_global={"noise": {"strength": 0.5}},
        training=Training(batch_size=4, **training),
    )


def views_of(settings, number=0, **choice):
    store = FakeClips()
    return TrainViews(settings, **choice)(store, 0, clip_generator(0, number, store.ids[0]))


def write(folder, **views):
    values = {"extends": str(Path("params.yaml").resolve()), "plugins": [str(PLUGIN)], "views": views}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return folder / "params.yaml"


def test_it_changes_the_view_that_names_it_and_no_other():
    plain, changed = views_of(recipe({"jitter": (0.4, 0.4, 0, 0)})), views_of(noisy())
    assert torch.equal(plain["audio"][1], changed["audio"][1])
    assert all(torch.equal(a, b) for a, b in zip(plain["video"], changed["video"], strict=True))
    noise = changed["audio"][0] - plain["audio"][0]
    assert 0 < noise.std() <= 0.55
    assert abs(noise.mean()) < 0.02
    assert torch.equal(changed["audio"][0], views_of(noisy())["audio"][0])
    assert not torch.equal(changed["audio"][0], views_of(noisy(), number=1)["audio"][0])


def test_its_draws_do_not_depend_on_the_other_views():
    changed = views_of(noisy())["audio"][0]
    for choice in ({"modalities": ("audio",)}, {"local_views": False}):
        assert torch.equal(changed, views_of(noisy(), **choice)["audio"][0])


def test_evaluation_leaves_it_out():
    store = FakeClips()
    assert torch.equal(EvalViews(noisy())(store, 0)["audio"][0], EvalViews(recipe())(store, 0)["audio"][0])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("augment", ["cpu", "device"])
def test_batches_are_the_same_wherever_it_runs(monkeypatch, augment, workers):
    store = FakeClips(4)
    monkeypatch.setattr(loader, "open_rows", lambda whole, split, fold: store)
    monkeypatch.setattr(
        loader.manifest,
        "read_manifest",
        lambda path: type("Whole", (), {"rows": pd.DataFrame({"label": store.labels})})(),
    )
    batches = loader.train_loader(noisy(augment=augment, workers=workers), "m", seed=3)
    batches.set_epoch(2)
    (batch,) = batches
    for place, name in enumerate(batch.ids):
        alone = TrainViews(noisy())(store, store.ids.index(name), clip_generator(3, 2, name))["audio"][0]
        torch.testing.assert_close(batch.views["audio"][0][place], alone, atol=1e-3, rtol=0)


def test_params_take_its_settings(tmp_path):
    chosen = params.recipe(params.load(write(tmp_path, audio_global={"noise": {"strength": 0.3}})), "xkd")
    assert chosen.views.audio_global.plugged["noise"].strength == 0.3
    assert chosen.plugins == {PLUGIN}
    assert "noise" not in chosen.views.audio_local.plugged


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"video_global": {"noise": {"strength": 0.3}}}, "augmentation 'noise' is for audio, not for video"),
        ({"audio_global": {"noise": {"strengh": 0.3}}}, "strengh.*strength"),
        ({"audio_global": {"noise": {"strength": 2}}}, "noise.strength.*less than or equal to 1"),
        ({"audio_global": {"noize": {}}}, "noize.*did you mean 'noise'"),
    ],
)
def test_settings_that_do_not_fit_are_a_user_error(tmp_path, views, message):
    with pytest.raises(UserError, match=message):
        params.load(write(tmp_path, **views))
