"""`xkd ui` prints a link to the table of pretraining runs."""

import json
import os
import socket

import pytest
from ports import free_port

from xkd import tracking
from xkd.errors import UserError
from xkd.stages import ui


@pytest.fixture
def started(monkeypatch):
    """Collects the arguments and the environment of what would be executed."""
    commands = []
    monkeypatch.setattr(os, "execve", lambda path, arguments, environment: commands.append((arguments, environment)))
    return commands


@pytest.fixture
def port():
    return free_port()


def test_link_names_the_experiment_and_groups_its_accuracies_by_ablation(client, started, port, capsys):
    client.create_experiment("another, made before")
    with tracking.start(tracking.PRETRAINING, "for the table", "a run", {"ablation": "ae"}, {}, "d") as run:
        run.log_metrics({"student.video.linear": 91.25, "elsewhere.student.both.knn": 3.0, "loss": 1.0})
    ui.run(port)
    experiment = client.get_experiment_by_name(tracking.PRETRAINING)
    link = capsys.readouterr().out
    assert link == (
        f"Open http://127.0.0.1:{port}/#/experiments/{experiment.experiment_id}/runs"
        "?viewStateShareKey=xkd&workflowType=machine_learning\n"
    )
    view = json.loads(experiment.tags["mlflow.sharedViewState.xkd"])
    assert view["selectedColumns"] == ["metrics.`elsewhere.student.both.knn`", "metrics.`student.video.linear`"]
    assert view["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "ablation"}]
    ((arguments, environment),) = started
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{os.getcwd()}/mlflow.db"


def test_a_taken_port_is_said_before_anything_starts(client, started, port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(UserError, match=f"port {port} is in use.*--port {port + 1}"):
            ui.run(port)
    assert started == []


def test_an_address_that_does_not_answer_is_said_without_its_password(tracked, started, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"^MLflow at http://127.0.0.1:9 does not answer") as caught:
        ui.run(5000)
    assert "secret" not in str(caught.value)
