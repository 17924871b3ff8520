"""MLflow runs: one per key, resumed or superseded; a failure is one warning."""

import hashlib
import json
import math
import time
from pathlib import Path

import pytest

from xkd import tracking
from xkd.tracking import process, sender, server
from xkd.tracking import run as runs


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
    first = start("resumed")

    def interrupted():
        with first:
            first.log_steps([{"step": n, "loss": 1.0} for n in range(4)])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
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
    assert (hidden.info.lifecycle_stage, hidden.data.tags[sender.SUPERSEDED]) == ("deleted", "true")


def test_results_go_onto_a_finished_run(client):
    with start("attached") as run:
        pass
    tracking.attach(run.id).log_metrics({"linear": 50.0})
    (row,) = rows(client, "attached")
    assert (row.info.status, row.data.metrics) == ("FINISHED", {"linear": 50.0})


def test_a_dead_process_leaves_no_run_running(client, monkeypatch):
    """A run of another host stays as it is: nobody here knows whether its process is alive."""
    with start("alive") as alive:
        for run_id, host in (("dead", process.host()), ("elsewhere", "elsewhere/1")):
            experiment = client.get_experiment_by_name("xkd-digits").experiment_id
            tags = {"xkd.key": run_id, process.HOST: host, process.PROCESS: "1 0.0"}
            client.create_run(experiment, tags=tags)
        with start("next"):
            pass
        assert client.get_run(alive.id).info.status == "RUNNING"
    assert [row.info.status for row in rows(client, "dead")] == ["KILLED"]
    assert [row.info.status for row in rows(client, "elsewhere")] == ["RUNNING"]


def test_two_checkouts_on_one_database_keep_their_runs_apart(client, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    ids = []
    for checkout in ("one", "two", "one"):
        (tmp_path / checkout).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / checkout)
        with start("shared") as run:
            ids.append(run.id)
    assert {row.info.run_id for row in rows(client, "shared")} == set(ids[1:])


def test_large_files_are_named_not_copied(client, folder, monkeypatch):
    monkeypatch.setattr(sender, "COPIED_BYTES", 1000)
    weights = folder / "encoders" / "video_student" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"x" * 2000)
    (weights.parent / "config.json").write_text("{}")
    with start("weights") as run:
        run.log_files([folder / "encoders"])
    assert [file.path for file in client.list_artifacts(run.id, "encoders/video_student")] == [
        "encoders/video_student/config.json"
    ]
    local = client.download_artifacts(run.id, "references.json", str(folder))
    assert json.loads(Path(local).read_text()) == {
        "encoders/video_student/model.safetensors": {
            "path": str(weights),
            "bytes": 2000,
            "sha256": hashlib.sha256(b"x" * 2000).hexdigest(),
        }
    }


def test_long_runs_show_what_the_machine_does(client, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with start("watched") as run:
        for _ in range(300):
            time.sleep(0.1)
            if "system/cpu_utilization_percentage" in client.get_run(run.id).data.metrics:
                break
    shown = client.get_run(run.id)
    assert shown.data.metrics["system/system_memory_usage_megabytes"] > 0
    assert shown.info.status == "FINISHED"


def test_a_run_that_was_superseded_in_the_meantime_is_not_monitored(client, monkeypatch, capsys):
    """Another machine superseded it while MLflow did not answer here; sending its `start` again reveals that."""
    with start("overtaken") as old:
        with start("overtaken", digest="d2"):
            pass
        runs._quiet_until[server.address()] = math.inf
        old.log_metrics({"kept": 1})
        runs._quiet_until[server.address()] = 0.0
        old.log_metrics({"sent": 2})
        assert old._monitor is None
    said = capsys.readouterr().err
    assert "the kept events have been sent" in said
    assert "no system metrics" not in said


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
