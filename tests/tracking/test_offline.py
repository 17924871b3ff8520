"""A tracking server that is unreachable, hangs or comes back: nothing is lost or logged twice."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from ports import free_port

from xkd import tracking
from xkd.errors import UserError
from xkd.stages import sync
from xkd.tracking import run as runs
from xkd.tracking import server as mlflow_server
from xkd.tracking.spool import UNSENT

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Starts a real tracking server; yields its process and its address."""
    port = free_port()
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    with open(tmp_path_factory.mktemp("server") / "log", "w") as log:
        process = subprocess.Popen(
            [*command, "--backend-store-uri", "sqlite:///mlflow.db"],
            cwd=os.path.dirname(log.name),
            env=os.environ | quiet,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def away(tracked, monkeypatch):
    """Sets an address where nobody answers."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return tracked


@pytest.fixture
def back(server, away, monkeypatch):
    """Returns a function that sets the address of the server and returns a client."""
    process, address = server
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

    def answer():
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.2)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=address)

    return answer


def start(key, digest="d"):
    return tracking.start(tracking.PRETRAINING, key, f"run {key}", {"lr": 0.1}, {"variant": "XKD"}, digest)


def curve(run, first, end):
    run.log_steps([{"step": n, "loss": n / 2, "bad": float("nan")} for n in range(first, end)])


def rows(client, *keys):
    experiment = client.get_experiment_by_name(tracking.PRETRAINING).experiment_id
    found = [run for run in client.search_runs([experiment]) if run.data.tags["xkd.key"] in keys]
    return sorted(found, key=lambda run: keys.index(run.data.tags["xkd.key"]))


def points(client, run):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")]


def test_work_goes_on_while_nobody_answers_and_is_sent_later(away, back, capsys):
    figure = away / "samples.png"
    figure.write_text("a picture")
    (away / "changed.json").write_text("of this run")
    with pytest.raises(KeyError, match="the work"), start("first"):
        raise KeyError("the work")
    with start("second") as run:
        curve(run, 0, 5)
        run.log_metrics({"seconds": 3.5})
        run.log_files([figure, away / "changed.json", away / "absent.json"])
    tracking.attach(run.id, key="second").log_metrics({"student.video.linear": 91.25})
    assert run.id is None
    (warning,) = capsys.readouterr().err.splitlines()
    assert "continuing without it" in warning
    assert "python -m xkd sync" in warning
    assert NOBODY in warning

    with pytest.raises(UserError, match="does not answer, 3 files stay in mlflow-unsent/"):
        sync.run()
    (away / "changed.json").write_text("of another run")
    shutil.copytree(UNSENT, "copy")
    client = back()
    for folder in (None, "copy"):  # sending a second time logs nothing twice
        if folder:
            shutil.copytree(folder, UNSENT, dirs_exist_ok=True)
        capsys.readouterr()
        sync.run()
        said = capsys.readouterr().out
        assert "3 of 3 files sent" in said
        assert f"{away}/changed.json has changed since" in said
        assert list(UNSENT.iterdir()) == []
        first, second = rows(client, "first", "second")
        assert [first.info.status, second.info.status] == ["FAILED", "FINISHED"]
        assert (second.info.run_name, second.data.params, second.data.tags["variant"]) == (
            "run second",
            {"lr": "0.1"},
            "XKD",
        )
        assert points(client, second) == [(n, n / 2) for n in range(5)]
        assert second.data.metrics["student.video.linear"] == 91.25
        assert [file.path for file in client.list_artifacts(second.info.run_id)] == ["samples.png"]
    sync.run()
    assert "Nothing to send" in capsys.readouterr().out


def test_a_server_that_hangs_and_comes_back_gets_what_it_missed(server, away, back, monkeypatch, capsys):
    """The server handles requests from the time when it hung afterwards, so that it gets some of them twice."""
    client = back()
    with start("hung") as run:
        curve(run, 0, 3)
        capsys.readouterr()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        os.killpg(server[0].pid, signal.SIGSTOP)
        try:
            curve(run, 3, 6)
            curve(run, 6, 9)
        finally:
            os.killpg(server[0].pid, signal.SIGCONT)
        assert len(list(UNSENT.iterdir())) == 1
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        sync.run()
        assert "in use by a running stage" in capsys.readouterr().out
        monkeypatch.setattr(runs, "_quiet_until", {})
        curve(run, 9, 12)
        assert list(UNSENT.iterdir()) == []
    (row,) = rows(client, "hung")
    assert (row.info.run_id, row.info.status) == (run.id, "FINISHED")
    assert points(client, row) == [(n, n / 2) for n in range(12)]


def test_an_interrupted_run_continues_from_the_kept_events(away, back):
    """It is interrupted and resumed without a server, then with one; the first process is killed while it writes."""
    first = start("resumed")
    first.__enter__()
    curve(first, 0, 4)
    (kept,) = UNSENT.iterdir()
    first._spool.close()
    with open(kept, "a") as file:
        file.write('{"event": "curve", "po')

    def interrupted():
        with start("resumed") as second:
            curve(second, 2, 6)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    client = back()
    with start("resumed") as third:
        curve(third, 4, 8)
    (row,) = rows(client, "resumed")
    assert (row.info.run_id, row.info.status) == (third.id, "FINISHED")
    assert points(client, row) == [(n, n / 2) for n in range(8)]
    assert list(UNSENT.iterdir()) == []


def test_sync_closes_the_run_of_a_killed_process_and_other_settings_supersede_it(away, back, capsys):
    old = start("changed", digest="old")
    old.__enter__()
    old._spool.close()
    with start("changed", digest="new") as new:
        curve(new, 0, 2)
    killed = start("killed")
    killed.__enter__()
    killed._spool.close()
    client = back()
    shutil.copytree(UNSENT, "copy")
    ids = set()
    for _ in range(2):  # sending a second time changes nothing
        sync.run()
        changed, killed = rows(client, "changed", "killed")
        assert (changed.data.tags["xkd.digest"], changed.info.status) == ("new", "FINISHED")
        assert points(client, changed) == [(n, n / 2) for n in range(2)]
        assert killed.info.status == "KILLED"
        ids.add((changed.info.run_id, killed.info.run_id))
        shutil.copytree("copy", UNSENT, dirs_exist_ok=True)
    assert len(ids) == 1


def test_a_run_of_two_processes_that_is_sent_twice_stays_one_run(away, back):
    first = start("twice")
    first.__enter__()
    curve(first, 0, 4)
    first._spool.close()
    with start("twice") as second:
        curve(second, 4, 8)
    shutil.copytree(UNSENT, "copy")
    client = back()
    ids = set()
    for _ in range(2):
        sync.run()
        (row,) = rows(client, "twice")
        assert (row.info.status, points(client, row)) == ("FINISHED", [(n, n / 2) for n in range(8)])
        ids.add(row.info.run_id)
        shutil.copytree("copy", UNSENT, dirs_exist_ok=True)
    assert len(ids) == 1


def test_a_full_disk_is_one_more_warning(away, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.Spool, "append", full)
    with start("full") as run:
        curve(run, 0, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "No space left on device" in lines[1]


def test_a_silent_server_is_asked_once_and_given_up_on_after_seconds(tracked, monkeypatch, capsys):
    """The server accepts connections and never answers; all events are kept."""
    listener = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listener.getsockname()[1]}")
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(name, mlflow_server.QUIET_AND_IMPATIENT[name])
    seconds, retries = (int(os.environ[f"MLFLOW_HTTP_REQUEST_{name}"]) for name in ("TIMEOUT", "MAX_RETRIES"))
    assert seconds * (1 + retries) <= 5
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(runs, "_quiet_until", {})
    with listener, start("silent") as run:
        curve(run, 0, 2)
        tracking.attach(run.id, key="silent").log_metrics({"a": 1.0})
        listener.settimeout(0)
        listener.accept()
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert "continuing without it" in capsys.readouterr().err
    assert len(list(UNSENT.iterdir())) == 2
