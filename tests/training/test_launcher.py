"""torchrun is killed: its processes end, and the run goes on from a checkpoint as if nothing had been."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from forks import code_of, group

from xkd import cli, fingerprint
from xkd.stages import pretrain as _pretrain
from xkd.training import checkpoint

ROOT = Path(__file__).parents[2]
MINIATURE = ROOT / "workflow" / "presets" / "miniature.yaml"
IMPORTED = _pretrain  # once, for all forks
CHECKPOINT = Path("checkpoints/miniature/xkd/seed0/last.pt")


@pytest.fixture(scope="module")
def root(tmp_path_factory, miniature):
    root = tmp_path_factory.mktemp("launcher")
    usual = {"extends": str(MINIATURE), "training": {"epochs": 40}}
    saving = {"extends": "params.yaml", "training": {"workers": 1, "checkpoint_minutes": 1e-6}}
    for name, settings in (("params", usual), ("saving", saving)):
        (root / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copytree(miniature, "data")
        fingerprint.stage("pretrain")
    return root


def command(out: str) -> list[str]:
    return f"pretrain --manifest data/manifest.csv --ablation xkd --seed 0 --out {out}".split()


def in_two_processes(out: str) -> None:
    """As torchrun would start them."""

    def function():
        sys.argv = ["xkd", *command(out)]
        cli.main()

    Path(out).mkdir(exist_ok=True)
    codes = [code_of(child) for child in group(function, Path(out))]
    assert codes == [0, 0], Path(out, "rank0.txt").read_text()


def wait_until(true, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_processes_end_when_their_torchrun_is_killed(root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XKD_PARAMS": "saving.yaml"}
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "xkd"]
    with open("torchrun.txt", "w") as log:
        torchrun = subprocess.Popen([*starter, *command("killed")], env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: CHECKPOINT.exists() or torchrun.poll() is not None)
        processes = psutil.Process(torchrun.pid).children(recursive=True)
        assert len(processes) >= 4, "two ranks, each with a loader process"
    finally:
        torchrun.kill()
        torchrun.wait()
    _gone, alive = psutil.wait_procs(processes, timeout=60)
    for process in alive:
        process.kill()
    assert not alive
    state = checkpoint.content(CHECKPOINT)
    assert state["epoch"] < 40
    in_two_processes("killed")
    assert "continuing at step" in Path("killed/rank0.txt").read_text()
    in_two_processes("peace")
    for folder in Path("peace/encoders").iterdir():
        name = Path("encoders", folder.name, "model.safetensors")
        assert Path("killed", name).read_bytes() == Path("peace", name).read_bytes(), name
