"""Locks, on file systems that have them and on those that do not."""

import errno
import fcntl
from contextlib import closing, contextmanager

import pytest
from filelock import SoftFileLease, Timeout

from xkd import files, made
from xkd.downstream import store
from xkd.errors import UserError
from xkd.files import locked
from xkd.tracking import server
from xkd.tracking.spool import Spool
from xkd.training import checkpoint


@pytest.fixture(params=[errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def no_flock(request, monkeypatch):
    def refused(*_):
        raise OSError(request.param, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(files, "LEASE_SECONDS", 0.3)


@contextmanager
def spooled(folder):
    with closing(Spool(folder / "a.jsonl", wait=False)) as spool:
        spool.append({"event": "end"})
        yield


USERS = {
    "training": checkpoint.exclusive,
    "prepare": lambda folder: made.opened(folder, "prepare"),
    "features": store._alone,
    "spool": spooled,
    "database": lambda folder: server.first_access(),
}


@pytest.mark.usefixtures("no_flock")
@pytest.mark.parametrize("user", USERS)
def test_every_lock_has_a_substitute(tmp_path, monkeypatch, capfd, user):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for _ in range(2):
        with USERS[user](tmp_path):
            assert len(list(tmp_path.glob("*.lease"))) == 1
        assert not list(tmp_path.glob("*.lease"))
    assert capfd.readouterr().err.count("which this file system does not have (no locks here)") == 1


def excluded(path):
    with locked(path, "busy"), pytest.raises(UserError, match="^busy$"), locked(path, "busy"):
        pass


def test_a_lock_excludes_others(tmp_path):
    excluded(tmp_path / "lock")


@pytest.mark.usefixtures("no_flock")
def test_a_substitute_excludes_others_for_longer_than_it_lasts_unless_renewed(tmp_path):
    excluded(tmp_path / "lock")


@pytest.mark.usefixtures("no_flock")
def test_a_lock_left_by_another_machine_is_taken_after_a_while(tmp_path):
    left = tmp_path / "lock.lease"
    with SoftFileLease(left, lease_duration=files.LEASE_SECONDS):
        text = left.read_text()
    left.write_text("\n".join("host=gone" if line.startswith("host=") else line for line in text.split("\n")))
    with pytest.raises(Timeout):
        SoftFileLease(left, lease_duration=files.LEASE_SECONDS, timeout=0).acquire()
    with locked(tmp_path / "lock", "busy"):
        assert "host=gone" not in left.read_text()
