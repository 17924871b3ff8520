"""Backbones other than the default through all stages: `rope`, and one that a plugin registers."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from xkd import load_encoder, params
from xkd.downstream.finetune_learner import Classifier, layer_groups
from xkd.errors import UserError
from xkd.plan.arithmetic import encoder_forward
from xkd.plan.footprint import memory
from xkd.settings import Finetune
from xkd.stages import embed, evaluate, pretrain
from xkd.training.build import build_networks
from xkd.training.export import load_encoders

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "plugins" / "tiny_backbone.py"
SETTINGS = f"""
extends: {ROOT}/workflow/presets/miniature.yaml
plugins: [{PLUGIN}]
ablations:
  rope: {{hypothesis: Rotary positions., changes: {{model: {{arch: rope}}}}}}
  rope_mas: {{hypothesis: One student., changes: {{model: {{arch: rope, share: students}}}}}}
  averages:
    hypothesis: No attention.
    changes: {{model: {{arch: averages, averages: {{hidden: 12}}}}, objective: {{refinement: none}}}}
  refined: {{hypothesis: Not possible., changes: {{model: {{arch: averages}}}}}}
tasks:
  linear: {{protocol: linear}}
  finetune: {{protocol: finetune, ablations: null}}
"""
ROWS = ("rope", "rope_mas", "averages")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("settings") / "params.yaml"
    path.write_text(SETTINGS)
    return params.load(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory, settings, miniature):
    """Prepared clips and a trained run of each row."""
    root = tmp_path_factory.mktemp("backbones")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copytree(miniature, "data")
        for row in ROWS:
            pretrain.run(settings, Path("data/manifest.csv"), row, 0, Path(row))
    return root


@pytest.fixture(autouse=True)
def inside(root, monkeypatch):
    monkeypatch.chdir(root)


@pytest.mark.parametrize("row", ROWS)
def test_training_changes_every_tensor_and_the_folder_names_the_backbone(settings, row):
    recipe = params.recipe(settings, row)
    start, ended = build_networks(recipe, 0), load_encoders(Path(row))
    for modality, encoder in start.students.items():
        trained = ended["student", modality].state_dict()
        assert not [name for name, value in encoder.state_dict().items() if torch.equal(value, trained[name])]
    config = json.loads(Path(row, "encoders/video_student/config.json").read_text())
    own = ({"hidden": 12}, "averages") if row == "averages" else ({}, "rope")
    assert (config["settings"], config["arch"]) == own
    assert (config["plugin"] is None) == (row != "averages")


def test_an_exported_encoder_is_the_one_that_was_trained(settings):
    networks = build_networks(params.recipe(settings, "rope_mas"), 0)
    networks.students["video"].load_state_dict(load_encoders(Path("rope_mas"))["student", "video"].state_dict())
    loaded, view = load_encoder("rope_mas/encoders/video_student"), torch.randn(2, 3, 8, 32, 32)
    assert torch.equal(loaded.encoder.features(view), networks.students["video"].features(view))


def test_shared_blocks_stay_equal_through_training():
    video, audio = (load_encoders(Path("rope_mas"))["student", m] for m in ("video", "audio"))
    assert all(torch.equal(a, b) for a, b in zip(video.blocks.parameters(), audio.blocks.parameters(), strict=True))
    video, audio = (load_encoders(Path("rope"))["student", m] for m in ("video", "audio"))
    assert not torch.equal(next(video.blocks.parameters()), next(audio.blocks.parameters()))


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("task", ["linear", "finetune"])
def test_each_is_evaluated(settings, row, task):
    out = Path(f"{row}-{task}.json")
    evaluate.run(settings, Path("data/manifest.csv"), Path(row), task, out)
    assert json.loads(out.read_text())["metrics"].keys() >= {f"student.{m}.{task}.top1" for m in ("video", "audio")}


@pytest.mark.parametrize("row", ["rope", "averages"])
def test_layers_learn_at_rates_that_fall_from_the_head_down(row):
    encoder = load_encoders(Path(row))["student", "audio"]
    model = Classifier(encoder, 3, seed=0)
    groups = list(layer_groups(model, Finetune(learning_rate=0.8, layer_decay=0.5)))
    rates = {p: group["lr"] for group in groups for p in group["params"]}
    assert rates.keys() == set(model.parameters())
    for module, rate in ((model.head, 0.8), (model.encoder.norm, 0.8), (model.encoder.blocks, 0.4)):
        assert {rates[p] for p in module.parameters()} == {rate}
    assert rates[model.encoder.cls_token] == rates[model.encoder.embed.weight] == 0.2


@pytest.mark.parametrize("row", ["rope", "averages"])
def test_clips_of_files_and_of_other_lengths_are_embedded(row):
    embed.run(Path(row, "encoders/video_student"), (Path("data/raw/clips"),), Path(f"{row}.parquet"), 16)
    table = pd.read_parquet(f"{row}.parquet")
    assert len(table) >= 80
    assert np.isfinite(np.stack(table["vector"])).all()
    frames = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8)
    assert load_encoder(f"{row}/encoders/video_student")(frames).shape == (16,)


def test_an_encoder_of_a_plugin_says_which_file_to_load():
    code = (
        "import xkd\n"
        "from xkd.errors import UserError\n"
        "try:\n    xkd.load_encoder('averages/encoders/video_student')\n"
        "except UserError as error:\n    print(error)\n    exec(str(error).rsplit(': ', 1)[1])\n"
        "print(xkd.load_encoder('averages/encoders/video_student').config.settings)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "backbone 'averages'" in done[0]
    assert "tiny_backbone.py" in done[0]
    assert done[1] == "{'hidden': 12}"


def test_refinement_needs_attention(settings):
    with pytest.raises(UserError, match="averages has no CLS attention to refine with; set refinement to none"):
        build_networks(params.recipe(settings, "refined"), 0)


def test_settings_of_a_plugin_are_validated(tmp_path):
    for wrong, message in (("hiden: 3", "hiden"), ("hidden: many", "hidden")):
        (tmp_path / "wrong.yaml").write_text(SETTINGS.replace("hidden: 12", wrong))
        with pytest.raises(UserError, match=message):
            params.load(tmp_path / "wrong.yaml")


def test_a_run_starts_from_encoders_of_its_own_backbone_only(settings):
    training = settings.training.model_copy(update={"weights": ("rope/encoders/video_student",)})
    with pytest.raises(UserError, match="arch is rope, the settings ask for vit"):
        pretrain.run(
            settings.model_copy(update={"training": training}), Path("data/manifest.csv"), "xkd", 0, Path("out")
        )


def test_the_plan_counts_the_operations_of_a_plugin(settings):
    recipe = params.recipe(settings, "averages")
    width, hidden, patches = 16, 12, 32
    blocks = 2 * (patches + 1) * 2 * width * hidden
    assert encoder_forward(recipe, "video") == blocks + 2 * patches * (4 * 8 * 8 * 3) * width
    assert memory(recipe).activations > 0


def test_the_card_names_the_backbone():
    assert "Backbone `rope`: width 16" in Path("rope/encoders/audio_teacher/README.md").read_text()
