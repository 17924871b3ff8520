"""Checkpoints: what they hold, what becomes of damaged ones, and which may be continued."""

import errno
import os
import random
import resource
import signal
import sys
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch
from forks import code_of, fork
from tiny_runs import curves, same, settings, train, trainer

from xkd.errors import UserError
from xkd.training import checkpoint

IDENTITY = {"training.epochs": 3, "seed": 0, "data": "abc", "code": "def"}


def save(folder, number=1, identity=IDENTITY):
    checkpoint.keep(folder, identity, {}, {"number": number, "weights": torch.full((50_000,), float(number))})


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def cut(path, place):
    path.write_bytes(path.read_bytes()[: int(place * path.stat().st_size)])


def files(folder):
    return sorted(path.name for path in folder.iterdir())


class Stopped(Exception):
    pass


def stop_before(step, folder):
    """Keeps the state before that step, and ends the training there."""

    def save(state):
        if 2 * state["epoch"] + state["batch"] == step:
            checkpoint.keep(folder, IDENTITY, {}, state)
            raise Stopped

    return save


@pytest.mark.parametrize("training", [{}, {"precision": "float16"}, {"mode": "supervised"}])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_run_goes_on_at_any_step_as_if_nothing_had_been(tmp_path, step, training):
    """Two steps an epoch, so within an epoch too; the state comes back from its file."""
    whole = train(trainer(settings(**training)))
    with pytest.raises(Stopped):
        train(trainer(settings(checkpoint_minutes=1e-9, **training)), save=stop_before(step, tmp_path))
    resumed = trainer(settings(**training))
    resumed.load_state_dict(checkpoint.unfinished(tmp_path, IDENTITY))
    assert resumed.step == step
    train(resumed)
    assert same(whole, resumed)
    pd.testing.assert_frame_equal(curves(whole), curves(resumed), check_exact=True)
    epochs = [pd.DataFrame(one.recorder.epochs).filter(regex="loss|recon|cross|norm") for one in (whole, resumed)]
    pd.testing.assert_frame_equal(*epochs, check_exact=True)


def test_global_generators_go_on_too(tmp_path):
    with pytest.raises(Stopped):
        train(trainer(settings(checkpoint_minutes=1e-9)), save=stop_before(1, tmp_path))

    def draws():
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    found = []
    for _ in range(2):
        trainer(settings()).load_state_dict(checkpoint.unfinished(tmp_path, IDENTITY))
        found.append(draws())
    assert found[0] == found[1]
    assert all(a != b for a, b in zip(found[0], draws(), strict=True))


def test_a_batch_of_another_size_goes_on_with_the_clip_that_comes_next(tmp_path):
    one = trainer(settings(batch_size=8))
    one.epoch, one.batch = 1, 1
    other = trainer(settings(batch_size=4))
    other.load_state_dict(one.state_dict())
    assert (other.epoch, other.batch) == (1, 2)


def test_networks_of_another_shape_are_refused():
    state = trainer(settings()).state_dict()
    chosen = settings()
    wider = chosen.model_copy(update={"model": chosen.model.model_copy(update={"width": 32})})
    with pytest.raises(UserError, match="does not fit the networks of these settings"):
        trainer(wider).load_state_dict(state)


@pytest.mark.parametrize("change", [{"scaler": None}, {"seconds": []}, {"optimiser": {}}, {"faults": {}}])
def test_a_state_that_lacks_something_is_refused(change):
    state = trainer(settings()).state_dict()
    for name, value in change.items():
        state[name] = value
        if value is None:
            del state[name]
    with pytest.raises(UserError, match="does not fit the networks of these settings"):
        trainer(settings()).load_state_dict(state)


def test_the_newest_two_are_kept_and_readable_by_anyone(tmp_path):
    for number in (1, 2, 3):
        save(tmp_path, number)
    assert files(tmp_path) == ["last.pt", "previous.pt"]
    state = torch.load(tmp_path / "previous.pt", weights_only=True)
    assert (state["number"], state["format"], state["identity"]) == (2, checkpoint.FORMAT, IDENTITY)
    checkpoint.remove(tmp_path)
    assert files(tmp_path) == []
    assert checkpoint.unfinished(tmp_path, IDENTITY) is None


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize("place", [0.3, 0.5, 0.9])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_used(tmp_path, capsys, damage, place):
    save(tmp_path, 1)
    save(tmp_path, 2)
    damage(tmp_path / "last.pt", place)
    assert checkpoint.unfinished(tmp_path, IDENTITY)["number"] == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "last.pt is damaged" in said
    save(tmp_path, 3)
    damage(tmp_path / "last.pt", place)
    assert checkpoint.unfinished(tmp_path, IDENTITY)["number"] == 1, "the damaged file took the place of a good one"


def test_no_good_checkpoint_is_said_and_can_be_put_aside(tmp_path):
    save(tmp_path)
    cut(tmp_path / "last.pt", 0.5)
    with pytest.raises(UserError, match="no good one before it; set XKD_RESUME=anew"):
        checkpoint.unfinished(tmp_path, IDENTITY)
    assert checkpoint.unfinished(tmp_path, IDENTITY, "anew") is None
    assert files(tmp_path / "set-aside-1") == ["last.pt"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    save(tmp_path, 1)
    os.replace(tmp_path / "last.pt", tmp_path / "previous.pt")
    (tmp_path / ".last.pt.123.part").write_bytes(b"half")
    with checkpoint.exclusive(tmp_path):
        assert checkpoint.unfinished(tmp_path, IDENTITY)["number"] == 1
    assert files(tmp_path) == ["last.pt", "lock"]


def test_another_identity_is_refused_with_the_difference_unless_asked_for(tmp_path, capsys):
    save(tmp_path)
    changed = IDENTITY | {"training.epochs": 5, "code": "new"}
    with pytest.raises(UserError) as raised:
        checkpoint.unfinished(tmp_path, changed)
    message = str(raised.value)
    assert "training.epochs was 3, is 5" in message
    assert "code was def, is new" in message
    assert "seed" not in message
    assert "XKD_RESUME=changed" in message
    assert "XKD_RESUME=anew" in message
    assert checkpoint.unfinished(tmp_path, changed, "changed")["number"] == 1
    assert "training.epochs was 3, is 5" in capsys.readouterr().err
    for number in (1, 2):
        save(tmp_path)
        assert checkpoint.unfinished(tmp_path, changed, "anew") is None
        assert (tmp_path / f"set-aside-{number}" / "last.pt").exists()
    save(tmp_path, 4, changed)
    assert checkpoint.unfinished(tmp_path, changed, "anew")["number"] == 4, (
        "a requeued job must not start over each time"
    )


def test_a_checkpoint_of_an_older_version_is_refused(tmp_path):
    torch.save({"digest": "x", "epoch": 1}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="its format is older"):
        checkpoint.unfinished(tmp_path, IDENTITY, "changed")


@contextmanager
def small_disk(size: int):
    """No file of this process may grow beyond `size` bytes; pytest's own output must not be written meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_old_checkpoints_stay(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    said = r"cannot be written \(File too large\); the one before is kept"
    with pytest.raises(UserError, match=said), small_disk(3000):
        save(tmp_path, 3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_sync_that_fails_leaves_old_checkpoints(tmp_path, monkeypatch):
    """Network file systems say only then that there is no room."""
    save(tmp_path, 1)

    def full(_handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        save(tmp_path, 2)
    assert files(tmp_path) == ["last.pt"]
    assert checkpoint.unfinished(tmp_path, IDENTITY)["number"] == 1


def test_a_second_trainer_on_the_same_run_is_refused(tmp_path):
    with checkpoint.exclusive(tmp_path):
        second = checkpoint.exclusive(tmp_path)
        with pytest.raises(UserError, match="another process"):
            second.__enter__()


def test_a_refused_process_leaves_the_log_of_the_running_one(tmp_path):
    """Snakemake removes a job's log before it starts the job, whether or not another process still writes there."""
    reading, writing = os.pipe()

    def work():
        with checkpoint.exclusive(tmp_path / "run"):
            print("epoch 0", file=sys.stderr, flush=True)
            os.write(writing, b".")
            time.sleep(60)

    child = fork(work, tmp_path / "job.txt")
    os.read(reading, 1)
    (tmp_path / "job.txt").unlink()
    with pytest.raises(UserError, match="another process is training this run.*run/log.txt"):
        checkpoint.exclusive(tmp_path / "run").__enter__()
    os.kill(child, signal.SIGKILL)
    code_of(child)
    assert (tmp_path / "run" / "log.txt").read_text() == "epoch 0\n"
