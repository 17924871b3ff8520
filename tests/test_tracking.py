"""MLflow runs: one per key, resumed or put aside; a failure is one warning."""

import math

import pytest

from xkd import tracking
from xkd.tracking import run as runs
from xkd.tracking.sender import SUPERSEDED


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One database for all tests here: making it takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def client(folder, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.chdir(folder)
    monkeypatch.setenv("XKD_TRACKING", "on")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")


def start(key, digest="d1", name="a run", params=None):
    return tracking.start("xkd-digits", key, name, params or {"lr": 0.1}, {"variant": "XKD"}, digest)


def rows(client, key):
    experiment = client.get_experiment_by_name("xkd-digits").experiment_id
    return client.search_runs([experiment], f"tags.`xkd.key` = '{key}'")


def points(client, run_id, name):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def test_a_run_shows_settings_curves_results_and_files(client, folder):
    (folder / "config.json").write_text("{}")
    settings = {"seed": 3, "long": "x" * 7000, "odd[name]": 1, **{f"key{n}": n for n in range(120)}}
    with start("full", name="xkd seed 3", params=settings) as run:
        run.log_steps([{"step": n, "loss": n / 2, "note": "text", "none": None} for n in range(5)])
        run.log_metrics({"student.video.linear": 91.25, "acc@1": 1.0, "bad": math.nan})
        run.log_files([folder / "config.json", folder / "absent.json"])
    (row,) = rows(client, "full")
    assert row.info.status == "FINISHED"
    assert (row.info.run_name, row.data.tags["variant"]) == ("xkd seed 3", "XKD")
    assert (row.data.params["seed"], row.data.params["key119"], row.data.params["odd_name_"]) == ("3", "119", "1")
    assert row.data.metrics["student.video.linear"] == 91.25
    assert points(client, run.id, "loss") == [(n, n / 2) for n in range(5)]
    assert [file.path for file in client.list_artifacts(run.id)] == ["config.json"]


def test_long_curves_are_thinned_and_keep_their_last_row(client):
    with start("long") as run:
        run.log_steps([{"step": n, "loss": float(n)} for n in range(1000)])
    steps = [step for step, _ in points(client, run.id, "loss")]
    assert len(steps) == runs.ROWS_PER_CALL
    assert steps[-1] == 999


def test_interrupted_run_is_continued_without_doubled_points(client):
    with pytest.raises(RuntimeError), start("resumed") as first:
        first.log_steps([{"step": n, "loss": 1.0} for n in range(4)])
        raise RuntimeError
    assert [row.info.status for row in rows(client, "resumed")] == ["FAILED"]
    with start("resumed") as second:
        second.log_steps([{"step": n, "loss": 1.0} for n in range(2, 6)])
    assert second.id == first.id
    assert points(client, first.id, "loss") == [(n, 1.0) for n in range(6)]
    assert [row.info.status for row in rows(client, "resumed")] == ["FINISHED"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_stopped_runs_are_marked_killed(client, error):
    key = error.__name__
    with pytest.raises(error), start(key):
        raise error
    assert [row.info.status for row in rows(client, key)] == ["KILLED"]


def test_other_settings_and_finished_runs_are_superseded(client):
    with pytest.raises(RuntimeError), start("again", digest="old") as old:
        raise RuntimeError
    with start("again", digest="new") as new:
        pass
    with start("again", digest="new", params={"lr": 0.2}) as newest:
        pass
    assert len({old.id, new.id, newest.id}) == 3
    assert [row.info.run_id for row in rows(client, "again")] == [newest.id]
    hidden = client.get_run(old.id)
    assert (hidden.info.lifecycle_stage, hidden.data.tags[SUPERSEDED]) == ("deleted", "true")


def test_results_go_onto_a_finished_run(client):
    with start("attached") as run:
        pass
    tracking.attach(run.id).log_metrics({"linear": 50.0})
    (row,) = rows(client, "attached")
    assert (row.info.status, row.data.metrics) == ("FINISHED", {"linear": 50.0})


def test_failure_is_one_warning_and_the_work_goes_on(client, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = []
    with start("unreachable") as run:
        run.log_metrics({"loss": 1.0})
        run.log_files(["x"])
        done.append(run.id)
    warnings = capsys.readouterr().err.splitlines()
    assert done == [None]
    assert len(warnings) == 1
    assert "going on without it" in warnings[0]


def test_errors_of_the_work_pass_through_when_tracking_failed(client, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://")
    with pytest.raises(KeyError, match="the work"), start("broken"):
        raise KeyError("the work")


def test_switched_off_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XKD_TRACKING", "off")
    with start("off") as run:
        run.log_metrics({"loss": 1.0})
    assert run.id is None
    assert list(tmp_path.iterdir()) == []
