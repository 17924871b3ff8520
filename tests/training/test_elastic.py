"""Elastic training: a lost process costs the steps since the last checkpoint; the number of processes may change."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
import yaml
from forks import code_of, group
from shared_runs import assert_same, result, shared_trainer
from tiny_runs import settings

from xkd import cli, fingerprint
from xkd.errors import UserError
from xkd.stages import pretrain as _pretrain
from xkd.training import checkpoint, distributed
from xkd.training.loop import Trainer

MINIATURE = Path(__file__).parents[2] / "workflow" / "presets" / "miniature.yaml"
STEPS = 10  # of `shared_trainer`, in two epochs
IMPORTED = _pretrain  # once, for all forks


def part(folder: Path, first: int, last: int):
    """Trains from the last checkpoint in `folder`, which is of step `first`, to the one before step `last`."""

    def work():
        with distributed.joined() as ranks:
            one = shared_trainer(settings(epochs=2, checkpoint_minutes=0.0), ranks)
            state = checkpoint.shared(folder, {}, group=ranks)
            if state:
                one.load_state_dict(state)
            assert one.step == first

            def save(state):
                checkpoint.keep(folder, {}, {}, state)
                if one.step == last != STEPS:
                    raise UserError("enough")

            try:
                for _ in one.epochs(save):
                    pass
            except UserError as error:
                raise SystemExit(2) from error
            if ranks.first:
                torch.save(result(one), folder / "result")

    return work


def trained(folder: Path, *parts: tuple[int, int, int]) -> dict:
    """What comes of training in parts: the number of processes, the first step, and the one before which it stops."""
    folder.mkdir()
    for size, first, last in parts:
        ended = [code_of(child) for child in group(part(folder, first, last), folder, size)]
        assert ended == size * [0 if last == STEPS else 2], (folder / "rank0.txt").read_text()
    return torch.load(folder / "result", weights_only=False)


def test_processes_may_go_and_come_back_between_two_checkpoints(tmp_path):
    """Two processes, then one, then two again: the losses and weights of one process that was left in peace."""
    changing = trained(tmp_path / "changing", (2, 0, 3), (1, 3, 6), (2, 6, STEPS))
    assert_same(changing, trained(tmp_path / "peace", (1, 0, STEPS)))


@pytest.fixture
def project(tmp_path, miniature, monkeypatch):
    """Prepared clips, and a run of two processes that was left in peace."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(miniature, "data")
    Path("params.yaml").write_text(yaml.safe_dump({"extends": str(MINIATURE)}))
    fingerprint.stage("pretrain")  # once, for all forks
    assert two("peace") == [0, 0], Path("peace/rank0.txt").read_text()
    return tmp_path


def two(out: str, lost: int | None = None) -> list[int]:
    """Trains in two processes as torchrun starts them, of which `lost` is killed in step 4; returns exit codes."""

    def rank():
        if int(os.environ["RANK"]) == lost:
            take = Trainer.take_step
            Trainer.take_step = lambda one, *rest: os.kill(os.getpid(), 9) if one.step == 4 else take(one, *rest)
        sys.argv = ["xkd", *f"pretrain --manifest data/manifest.csv --ablation xkd --seed 0 --out {out}".split()]
        cli.main()

    Path(out).mkdir(exist_ok=True)
    children = group(rank, Path(out))
    if lost is None:
        return [code_of(child) for child in children]
    codes = {lost: code_of(children[lost])}
    os.kill(children[1 - lost], signal.SIGTERM)  # torchrun ends the others before it starts all again
    codes[1 - lost] = code_of(children[1 - lost])
    return [codes[0], codes[1]]


def test_a_lost_process_costs_the_steps_since_the_last_checkpoint(project):
    """The process that holds the lock is lost. Both start again, and go on after the first epoch to equal weights."""
    first, second = two("lost", lost=0)
    assert first == -signal.SIGKILL
    assert second != 0
    assert two("lost") == [0, 0]
    assert "continuing at step 3 (epoch 1)" in Path("lost/rank0.txt").read_text()
    for name in ("video_student", "audio_student", "video_teacher", "audio_teacher"):
        file = f"encoders/{name}/model.safetensors"
        assert (project / "lost" / file).read_bytes() == (project / "peace" / file).read_bytes(), name
    assert not list(Path("checkpoints").rglob("*.p*t"))
