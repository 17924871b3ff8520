"""Elastic training: a lost process costs the steps since the last checkpoint; the number of processes may change."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from forks import code_of, fork, group
from ports import free_port
from shared_runs import assert_same, result, shared_trainer
from tiny_runs import settings
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

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
    monkeypatch.chdir(tmp_path)
    shutil.copytree(miniature, "data")
    Path("params.yaml").write_text(yaml.safe_dump({"extends": str(MINIATURE)}))
    fingerprint.stage("pretrain")
    return tmp_path


def rank(out: str, lost: str | None):
    """What each process of torchrun does; the second one of the first attempt is killed in step 4."""
    if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == lost:
        take = Trainer.take_step
        Trainer.take_step = lambda one, *rest: os.kill(os.getpid(), 9) if one.step == 4 else take(one, *rest)
    sys.argv = ["xkd", *f"pretrain --manifest data/manifest.csv --ablation xkd --seed 0 --out {out}".split()]
    try:
        cli.main()
    except SystemExit as error:  # torchrun's functions must return
        if error.code:
            raise


def by_torchrun(out: str, lost: str | None, restarts: int) -> str:
    """Trains as `torchrun --nproc-per-node 2 --max-restarts` does, in forks; returns what the first process said."""
    logs = DefaultLogsSpecs(log_dir=f"{out}.logs", redirects=Std.ALL)
    endpoint = {"rdzv_backend": "c10d", "rdzv_endpoint": f"127.0.0.1:{free_port()}", "local_addr": "127.0.0.1"}
    config = LaunchConfig(
        1, 1, 2, run_id=out, max_restarts=restarts, start_method="fork", logs_specs=logs, shutdown_timeout=5, **endpoint
    )
    code = code_of(fork(lambda: elastic_launch(config, rank)(out, lost), Path(f"{out}.txt")))
    said = [path.read_text() for path in sorted(Path(f"{out}.logs").rglob("0/stderr.log"))]
    assert code == 0, Path(f"{out}.txt").read_text() + "".join(said)
    return said[-1]


def test_a_lost_process_costs_the_steps_since_the_last_checkpoint(project):
    """Both are started again; they go on with step 3, after the checkpoint of the first epoch, to equal weights."""
    assert "continuing at" not in by_torchrun("peace", None, 0)
    assert "continuing at step 3 (epoch 1)" in by_torchrun("lost", "0", 1)
    for name in ("video_student", "audio_student", "video_teacher", "audio_teacher"):
        file = f"encoders/{name}/model.safetensors"
        assert Path("lost", file).read_bytes() == Path("peace", file).read_bytes(), name
    assert not list(Path("checkpoints").rglob("*.p*t"))
