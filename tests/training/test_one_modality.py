"""Rows of one modality on data that has only that one, from files to the table."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.io import wavfile

from xkd.errors import UserError
from xkd.params import merge, tasks_of
from xkd.settings import Params
from xkd.stages import download, evaluate, prepare, pretrain, table

MINIATURE = Path(__file__).parents[2] / "workflow" / "presets" / "miniature.yaml"
SOUND_ALONE = {"distillation": 0, "alignment": 0, "reconstruct": ["audio"]}
FOLDER = "runs/sounds/recon_audio/seed0/encoders/audio_student"
ROWS = {
    "recon_audio": {"hypothesis": "sound", "changes": {"objective": SOUND_ALONE}},
    "random_init": {"hypothesis": "random", "changes": {"objective": SOUND_ALONE, "training": {"mode": "none"}}},
    "supervised": {"hypothesis": "labels", "changes": {"objective": SOUND_ALONE, "training": {"mode": "supervised"}}},
    "given": {"hypothesis": "given", "changes": {"training": {"mode": "none", "weights": [FOLDER]}}},
}
CHANGES = {
    "dataset": "sounds",
    "seeds": [0],
    "datasets": {"sounds": {"kind": "folder", "source": "mine", "require": "audio"}},
    "training": {"epochs": 1, "batch_size": 8},
    "tasks": {"finetune": {"ablations": ["recon_audio"]}, "retrieval": {"protocol": "retrieval"}},
    "report": {"baseline": "recon_audio"},
}


def settings(rows: dict = ROWS) -> Params:
    return Params.model_validate(merge(yaml.safe_load(MINIATURE.read_text()), CHANGES) | {"ablations": rows})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Prepared sounds of two pitches."""
    root = tmp_path_factory.mktemp("sounds")
    seconds = np.arange(16000) / 16000
    for split, count in (("train", 16), ("test", 8)):
        for number in range(count):
            path = root / "mine" / split / ["low", "high"][number % 2] / f"{split}{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            tone = np.sin(2 * np.pi * [300, 2000][number % 2] * seconds + number)
            wavfile.write(path, 16000, (10_000 * tone).astype(np.int16))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        download.run(settings(), "sounds", Path("data/sounds/raw"))
        prepare.run(settings(), Path("data/sounds/raw/index.csv"), Path("data/sounds"))
    return root


@pytest.fixture(autouse=True)
def inside(root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setenv("XKD_TRACKING", "off")


def test_sounds_alone_are_trained_on_judged_and_shown(root):
    """Also yardsticks, and an encoder that was given."""
    params, manifest = settings(), Path("data/sounds/manifest.csv")
    for row in ROWS:
        run = Path("runs/sounds", row, "seed0")
        pretrain.run(params, manifest, row, 0, run)
        for task in tasks_of(params, row):
            evaluate.run(params, manifest, run, task, Path("evals/sounds", row, "seed0", f"{task}.json"))
    table.run(params, Path("results"))
    found = pd.read_csv("results/table.csv").set_index("ablation")
    assert set(found.index) == set(ROWS)
    assert found["student.audio.linear.mean"].notna().all()
    assert not [name for name in found if ".video." in name or "retrieval" in name]
    assert json.loads(Path("evals/sounds/given/seed0/linear.json").read_text())["clips"]["test"] == 8


def test_a_row_that_cannot_run_on_its_data_is_refused_before_training(root):
    params = settings({"both": {"hypothesis": "both", "changes": {}}, **ROWS})
    with pytest.raises(UserError, match="16 of 16 train clips have no video, .*row both trains video and audio"):
        pretrain.run(params, Path("data/sounds/manifest.csv"), "both", 0, Path("refused"))
    assert not Path("refused").exists()


@pytest.mark.parametrize("modality", ["video", "audio"])
def test_a_row_of_one_modality_gets_no_retrieval(modality):
    row = {"hypothesis": "one", "changes": {"objective": SOUND_ALONE | {"reconstruct": [modality]}}}
    for require in ("both", modality, None):
        params = settings({"one": row, "recon_audio": row})
        dataset = params.datasets["sounds"].model_copy(update={"require": require})
        params = params.model_copy(update={"datasets": {"sounds": dataset}})
        assert tasks_of(params, "one") == ["linear"]
