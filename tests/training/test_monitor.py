"""Watching a run: its kNN probe, the encoders of the moment and signs of collapse, none of which changes the run."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from forks import code_of, fork, group
from tiny_runs import settings as tiny
from tiny_runs import train, trainer

from xkd import load_encoder, params
from xkd.data import manifest as manifests
from xkd.data.loader import eval_loader
from xkd.downstream import monitor
from xkd.params import recipe
from xkd.stages import pretrain
from xkd.training.loop import Trainer

MINIATURE = Path(__file__).parents[2] / "workflow" / "presets" / "miniature.yaml"
RUN = Path("runs/miniature/xkd/seed0")
KEPT = Path("checkpoints/miniature/xkd/seed0")
MANIFEST = Path("data/manifest.csv")
COLUMNS = ["knn_student_video", "knn_student_audio", "knn_teacher_video", "knn_teacher_audio"]
WATCHED = {"probe_epochs": 2, "keep_encoders": True}


@pytest.fixture(scope="module")
def root(tmp_path_factory, miniature):
    """Prepared clips of the miniature."""
    root = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copytree(miniature, "data")
    return root


@pytest.fixture(autouse=True)
def inside(root, monkeypatch):
    monkeypatch.chdir(root)


def settings(**training):
    values = {
        "extends": str(MINIATURE),
        "training": {"epochs": 4, "checkpoint_epochs": 1, **training},
    }
    Path("settings.yaml").write_text(yaml.safe_dump(values))
    return params.load(Path("settings.yaml"))


def run(out=RUN, **training):
    pretrain.run(settings(**training), MANIFEST, "xkd", 0, Path(out))
    return Path(out)


def histories(*folders):
    return [pd.read_csv(folder / "history.csv") for folder in folders]


@pytest.fixture(scope="module")
def watched(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return root / run(**WATCHED)


def test_watching_changes_no_bit_of_a_run(watched):
    plain = run("plain")
    for folder in sorted(Path(plain, "encoders").iterdir()):
        assert (folder / "model.safetensors").read_bytes() == (
            watched / "encoders" / folder.name / "model.safetensors"
        ).read_bytes()
    with_probe, without = histories(watched, plain)
    assert list(with_probe.columns) == [*without.columns, *COLUMNS]
    times = ["data_wait_seconds", "clips_per_second"]
    pd.testing.assert_frame_equal(with_probe[without.columns].drop(columns=times), without.drop(columns=times))


def test_a_probe_every_other_epoch_judges_the_encoders_that_are_kept(watched):
    """Against the nearest neighbours of all clips of the set, embedded with the encoders of that moment as users do."""
    (history,) = histories(watched)
    assert history[COLUMNS].notna().all(axis=1).tolist() == [False, True, False, True]
    data, chosen = manifests.read_manifest(MANIFEST), recipe(settings(), "xkd")
    for epoch in (2, 4):
        for name in COLUMNS:
            _, owner, modality = name.split("_")
            encoder = load_encoder(KEPT / f"epoch{epoch:04}" / "encoders" / f"{modality}_{owner}")
            embedded = {split: features(encoder, chosen, split, modality) for split in ("train", "test")}
            labels = {split: np.array(data.split(split).labels) for split in embedded}
            near = (embedded["test"] @ embedded["train"].T).argsort(1)[:, ::-1]
            few = len(labels["train"]) // len(set(labels["train"]))
            right = [vote(labels["train"][row[:few]]) == own for row, own in zip(near, labels["test"], strict=True)]
            assert history[name][epoch - 1] == pytest.approx(100 * np.mean(right), abs=1e-6), name


def features(encoder, chosen, split, modality):
    with torch.no_grad():
        batches = eval_loader(chosen, MANIFEST, split, 7, [modality])
        rows = torch.cat([encoder.encoder.features(batch.views[modality][0]) for batch in batches])
    return torch.nn.functional.normalize(rows, dim=1).numpy()


def vote(labels):
    names, counts = np.unique(labels, return_counts=True)
    return names[counts.argmax()]


def test_a_run_that_goes_on_has_each_row_once(watched):
    def stopped():
        step = Trainer.take_step

        def stop(self, *arguments):
            if self.step == 3 * len(self.loader) + 1:
                signal.raise_signal(signal.SIGTERM)
            return step(self, *arguments)

        Trainer.take_step = stop
        run("resumed", **WATCHED)

    assert code_of(fork(stopped, Path("stopped.txt"))) == 143, Path("stopped.txt").read_text()
    whole, resumed = histories(watched, run("resumed", **WATCHED))
    assert resumed["epoch"].tolist() == [0, 1, 2, 3]
    pd.testing.assert_frame_equal(resumed[COLUMNS], whole[COLUMNS])


def test_the_first_of_two_processes_probes(watched):
    children = group(lambda: run("shared", **WATCHED), Path())
    assert [code_of(child) for child in children] == [0, 0], Path("rank0.txt").read_text()
    whole, shared = histories(watched, Path("shared"))
    assert shared[COLUMNS].notna().equals(whole[COLUMNS].notna())


def test_without_labels_one_line_says_that_nothing_is_probed(root, tmp_path, capsys):
    manifest = manifests.read_manifest(MANIFEST)
    table = manifest.all_rows.assign(label="", path=[str(root / "data" / path) for path in manifest.all_rows["path"]])
    manifests.write_manifest(tmp_path / "manifest.csv", table)
    chosen = settings(**WATCHED, epochs=2)
    pretrain.run(chosen, tmp_path / "manifest.csv", "xkd", 0, tmp_path / "run")
    lines = [line for line in capsys.readouterr().err.splitlines() if "kNN" in line]
    assert len(lines) == 1
    assert "needs training clips with two labels or more" in lines[0]
    assert not set(COLUMNS) & set(histories(tmp_path / "run")[0].columns)


def test_a_probe_that_fails_ends_no_run(watched, capsys, monkeypatch):
    monkeypatch.setattr("xkd.downstream.monitor.save_encoders", full)
    (history,) = histories(run("full", **WATCHED, epochs=2))
    assert "warning: epoch 2: no kNN probe: [Errno 28] No space left" in capsys.readouterr().err
    assert len(history) == 2


def full(*_arguments):
    raise OSError(28, "No space left on device")


def test_a_run_that_collapses_is_warned_of_once_while_it_trains(capsys, monkeypatch):
    """The centre of one teacher is as long as it can be from step 12 of 40 on; 5 % of the steps are two."""
    trained = trainer(tiny("xkd", epochs=20))
    healthy = {"teacher_entropy_video": 1.0, "teacher_entropy_audio": 1.0, "centre_norm_audio": 1.0}
    add, watch, logged = trained.recorder.add, monitor.CollapseWatch(trained), []

    def collapsed(step, epoch, values):
        add(step, epoch, values | healthy | {"centre_norm_video": 4.0 if step >= 12 else 1.0})

    monkeypatch.setattr(trained.recorder, "add", collapsed)
    trained.on_step = lambda _steps: logged.append(watch.look())
    train(trained)
    (line,) = capsys.readouterr().err.splitlines()
    assert "warning: step 14 of 40: the video teacher has collapsed: outputs the same for all clips" in line
    assert [found for found in logged if found] == [logged[13]] == [{"collapsed at step, video teacher": 14}]
    (alarm,) = monitor.alarms_of(trained)
    assert (alarm.step, alarm.about) == (14, ("collapsed", "video teacher"))
