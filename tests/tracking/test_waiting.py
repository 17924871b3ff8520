"""Short jobs do not load MLflow: what they log waits on disk, and others send it."""

import os
import subprocess
import sys
import time

import pytest

from xkd import tracking
from xkd.stages import ui
from xkd.tracking import server
from xkd.tracking.spool import UNSENT, waiting

EXPERIMENT = "xkd-waiting"
JOB = """
import sys
from xkd import tracking

with tracking.start("xkd-waiting", sys.argv[1], "a job", {}, {}, "d") as run:
    run.log_steps([{"step": 0, "loss": 1.0}])
tracking.attach(run.id, key=sys.argv[1]).log_metrics({"student.video.linear": 91.25})
print(run.id, "mlflow" in sys.modules)
"""


@pytest.fixture
def loading(client, monkeypatch):
    """Says whether loading MLflow is worth while: first it is not, though these tests have loaded it."""
    worth = {"now": False}
    monkeypatch.setattr(server, "worth_loading", lambda _seconds: worth["now"])
    return worth


def start(key):
    return tracking.start(EXPERIMENT, key, "a run", {"lr": 0.1}, {}, "d")


def rows(client, key):
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return client.search_runs([experiment.experiment_id], f"tags.`xkd.key` = '{key}'") if experiment else []


def aged():
    for path in waiting():
        os.utime(path, (time.time() - server.LIVE_SECONDS - 1,) * 2)


def test_a_short_job_leaves_its_run_to_whoever_asks_for_ids(client, folder):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", JOB, "short"]
    done = subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("None False\n", "")
    assert len(waiting()) == 2
    run_id, experiment_id = tracking.run_ids(EXPERIMENT)["short"]
    run = client.get_run(run_id)
    assert (run.info.experiment_id, run.info.status) == (experiment_id, "FINISHED")
    assert run.data.metrics == {"loss": 1.0, "student.video.linear": 91.25}
    assert list(UNSENT.iterdir()) == []


def test_a_run_appears_once_it_is_no_longer_young(client, loading):
    with start("long") as run:
        run.log_steps([{"step": 0, "loss": 1.0}])
        assert rows(client, "long") == []
        loading["now"] = True
        run.log_metrics({})
        (row,) = rows(client, "long")
        assert (row.info.run_id, row.info.status, row.data.metrics) == (run.id, "RUNNING", {"loss": 1.0})
        assert list(UNSENT.iterdir()) == []


def test_a_job_sends_what_has_been_waiting_for_long(client, loading):
    with start("first"):
        pass
    with start("second"):
        pass
    assert (rows(client, "first"), rows(client, "second")) == ([], [])
    aged()
    with start("third"):
        pass
    assert [len(rows(client, key)) for key in ("first", "second", "third")] == [1, 1, 1]


def test_what_mlflow_refuses_is_not_tried_again_at_once(client, loading, monkeypatch):
    tracking.attach(None, key="unknown").log_metrics({"a": 1.0})
    aged()
    tried = []
    monkeypatch.setattr("xkd.tracking.delivery.send", lambda path: tried.append(path.name))
    for key in ("one", "two"):
        with start(key):
            pass
    assert len(tried) == 2, "the refused one and `one`; `two` waits"


def test_the_page_of_mlflow_opens_with_everything(client, loading, monkeypatch):
    monkeypatch.setattr(server, "is_server", lambda: True)
    with start("shown"):
        pass
    ui.run(0)
    assert len(rows(client, "shown")) == 1


def test_a_run_that_was_switched_off_asks_mlflow_for_nothing(client, monkeypatch):
    monkeypatch.setenv("XKD_TRACKING", "off")
    monkeypatch.setattr(server, "client", None)
    assert tracking.run_ids(EXPERIMENT) == {}
