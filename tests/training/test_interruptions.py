"""A run that is killed again and again ends with the weights of one that was left in peace.

Most kills hit forks of this process; a few hit `python -m xkd pretrain` as users start it.
"""

import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from forks import code_of, fork, group

from xkd import cli
from xkd.training import checkpoint
from xkd.training.loop import Trainer
from xkd.training.recorder import STEP_TIMES

ROOT = Path(__file__).parents[2]
MINIATURE = ROOT / "workflow" / "presets" / "miniature.yaml"
KILLS, REAL = 20, 2  # REAL of them hit real commands
STEPS = 120
ARGUMENTS = ["--manifest", "data/manifest.csv", "--ablation", "xkd", "--seed", "0", "--out"]


def settings(root: Path, name: str, **training) -> Path:
    path = root / f"{name}.yaml"
    path.write_text(
        yaml.safe_dump({"extends": str(MINIATURE), "training": {"batch_size": 10, "epochs": 20, **training}})
    )
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory, miniature):
    """Prepared clips, and a run that was left in peace."""
    root = tmp_path_factory.mktemp("interruptions")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copytree(miniature, "data")
        settings(root, "peace")
        cli.cli.main(command("peace", "peace"), standalone_mode=False)  # imports once what all forks need
    assert not list((root / "checkpoints").rglob("*.pt"))
    return root


@pytest.fixture(autouse=True)
def inside(root, monkeypatch):
    monkeypatch.chdir(root)
    yield
    for path in (root / "checkpoints").rglob("*.pt"):
        path.unlink()


def command(name: str, out: str) -> list[str]:
    return ["pretrain", "--params", f"{name}.yaml", *ARGUMENTS, out]


def pretrain(name: str, out: str, steps: int | None = None):
    """What a fork does; a byte for each step goes to `steps`, a pipe."""

    def function():
        if steps is not None:
            step = Trainer.take_step
            Trainer.take_step = lambda *arguments: os.write(steps, b".") and step(*arguments)
        sys.argv = ["xkd", *command(name, out)]
        cli.main()

    return function


def kill_fork(name: str, number: int, rng: random.Random) -> int:
    """Starts a fork, kills it at a random moment after a few steps, and returns its exit code."""
    reading, writing = os.pipe()
    child = fork(pretrain(name, name, writing), Path(f"{name}.txt"))
    os.close(writing)
    for _ in range(rng.randint(1, 4)):
        if select.select([reading], [], [], 60)[0]:
            os.read(reading, 1)
    time.sleep(rng.uniform(0, 0.04))
    os.kill(child, number)
    os.close(reading)
    return code_of(child)


def kill_command(name: str, number: int) -> int:
    """The same for a command, once it has saved or finished an epoch."""
    log = Path(f"{name}.real.txt")
    with log.open("a") as out:
        before = log.stat().st_size
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-m", "xkd", *command(name, name)], stdout=out, stderr=out, env=environment
        )
        deadline = time.monotonic() + 120
        while b"\nepoch" not in b"\n" + log.read_bytes()[before:] and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)
        return process.wait()


def assert_same(name: str) -> None:
    for folder in Path("peace/encoders").iterdir():
        file = f"{folder.name}/model.safetensors"
        assert (folder / "model.safetensors").read_bytes() == Path(name, "encoders", file).read_bytes(), file
    steps = [pd.read_csv(f"{run}/steps.csv").drop(columns=list(STEP_TIMES)) for run in ("peace", name)]
    assert len(steps[0]) == STEPS
    pd.testing.assert_frame_equal(*steps, check_exact=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)])
def test_twenty_kills_change_nothing(root, number, code):
    """SIGKILL with a checkpoint at almost every step; SIGTERM with none but those that it asks for."""
    name = number.name.lower()
    saving = {"checkpoint_minutes": 1e-6} if number == signal.SIGKILL else {"checkpoint_epochs": 1000}
    settings(root, name, **saving)
    rng = random.Random(7)
    for _ in range(KILLS - REAL):
        assert kill_fork(name, number, rng) == code, (root / f"{name}.txt").read_text()[-2000:]
    for _ in range(REAL):
        assert kill_command(name, number) == code, (root / f"{name}.real.txt").read_text()[-2000:]
    assert code_of(fork(pretrain(name, name), root / f"{name}.txt")) == 0, (root / f"{name}.txt").read_text()[-2000:]
    assert_same(name)
    assert not list((root / "checkpoints").rglob("*.pt"))


def test_ctrl_c_saves_too(root):
    settings(root, "ctrl_c", checkpoint_epochs=1000)
    assert kill_fork("ctrl_c", signal.SIGINT, random.Random(1)) == 130
    said = Path("ctrl_c.txt").read_text()
    assert "stopped by SIGINT; saved" in said
    assert said.endswith("xkd: interrupted\n")
    state = checkpoint.content(Path("checkpoints/miniature/xkd/seed0/last.pt"))
    assert state["settings"]["training"]["batch_size"] == 10
    assert 6 * state["epoch"] + state["batch"] == len(state["recorder"]["steps"]["values"]) + len(
        state["recorder"]["pending"]["values"]
    )


def finish(name: str, resume: str) -> tuple[int, str]:
    """Runs to the end, from whatever there is, with XKD_RESUME."""
    log = Path(f"{name}.{resume}.txt")
    return code_of(fork(pretrain(name, name), log, {"XKD_RESUME": resume})), log.read_text()


def test_other_settings_are_refused_with_the_difference_unless_asked_for(root):
    settings(root, "edited", epochs=3)
    assert kill_fork("edited", signal.SIGTERM, random.Random(2)) == 143
    settings(root, "edited", epochs=2, learning_rate=0.002, workers=1, checkpoint_epochs=7, accumulate=2)
    code, said = finish("edited", "same")
    assert code == 2
    assert said.count("\n") == 1
    assert "training.epochs was 3, is 2; training.learning_rate was 0.001, is 0.002. Undo that" in said
    code, said = finish("edited", "changed")
    assert code == 0
    assert "training.learning_rate was 0.001, is 0.002" in said
    assert "continuing at step" in said
    rates = pd.read_csv("edited/steps.csv")["learning_rate"]
    assert rates[0] == 0.001
    assert len(rates) == 12


def test_settings_that_only_say_how_to_run_are_no_difference(root):
    settings(root, "moved", epochs=2)
    assert kill_fork("moved", signal.SIGTERM, random.Random(3)) == 143
    settings(root, "moved", epochs=2, workers=1, checkpoint_epochs=7, checkpoint_minutes=1.0)
    code, said = finish("moved", "same")
    assert code == 0
    assert "continuing at step" in said


def test_starting_anew_keeps_the_old_checkpoint_aside(root):
    settings(root, "anew", epochs=2)
    assert kill_fork("anew", signal.SIGTERM, random.Random(4)) == 143
    settings(root, "anew", epochs=1)
    code, said = finish("anew", "anew")
    assert code == 0
    assert "starting over" in said
    assert len(pd.read_csv("anew/steps.csv")) == 6
    assert Path("checkpoints/miniature/xkd/seed0/set-aside-1/last.pt").exists()


def test_torchrun_trains_in_two_processes_and_one_writes(root):
    """Float32, so nearly the weights of one process."""
    settings(root, "two", epochs=2)
    settings(root, "one", epochs=2)
    assert code_of(fork(pretrain("one", "one"), root / "one.txt")) == 0

    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "xkd"]
    done = subprocess.run(
        [*starter, *command("two", "two")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1:") == 1
    one, two = (pd.read_csv(f"{run}/steps.csv") for run in ("one", "two"))
    assert len(two) == 12
    for name in ("loss", "feature_spread_video", "centre_norm_audio"):
        assert two[name].tolist() == pytest.approx(one[name].tolist(), rel=1e-3), name


def test_a_batch_that_three_processes_cannot_share_is_one_line(root, tmp_path):
    settings(root, "three")
    children = group(pretrain("three", "three"), tmp_path, size=3)
    assert [code_of(child) for child in children] == [2, 2, 2]
    said = "".join((tmp_path / f"rank{rank}.txt").read_text() for rank in range(3))
    assert said == (
        "xkd: error: training.batch_size: 10 clips cannot be shared equally by 3 processes; "
        "change it, or start another number of them\n"
    )
