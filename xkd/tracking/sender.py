"""Sends events to MLflow: those of a running stage at once, those of a spool later.

An event is a dict: `event` is its kind, `time` when it happened (milliseconds). Sending an event twice does no harm: a
run is found by the id in its `start`, MLflow drops points that it has, and points of curves that are not after the last
step in MLflow are left out.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xkd.files import sha256
from xkd.tracking import process, server
from xkd.tracking.spool import Spool, events_in

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KEY, DIGEST, STARTS, PROJECT, SUPERSEDED = "xkd.key", "xkd.digest", "xkd.starts", "xkd.project", "xkd.superseded"
COPIED_BYTES = 10_000_000  # larger files stay where they are, and REFERENCES says where that is
REFERENCES = "references.json"
MOST = 50_000  # runs that one search may return, the limit of MLflow


class NoSuchRun(LookupError):
    """MLflow does not have the run that results belong to."""


class Sender:
    """Sends events in order. Every method raises what MLflow raises.

    Attributes:
        run_id: MLflow's id of the run that the last `start` or `attach` opened; None if that run is superseded.
        experiment_id: MLflow's id of the experiment of the last `start`.
        left_out: files that could not be copied, and why.
    """

    def __init__(self) -> None:
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self.left_out: list[str] = []
        self._superseded = False
        self._last_step: dict[str, int] = {}

    def send_all(self, spool: Spool) -> None:
        """Sends every event of a spool, then removes the spool."""
        for event in events_in(spool.path):
            self.send(event)
        spool.remove()

    def send(self, event: dict[str, Any]) -> None:
        """Sends one event.

        Raises:
            NoSuchRun: the event belongs to a run that does not exist.
        """
        server.import_mlflow()
        if event["event"] == "start":
            self._start(event)
        elif event["event"] == "attach":
            self._attach(event)
        elif self.run_id:
            {"metrics": self._metrics, "files": self._files, "end": self._end}[event["event"]](self.run_id, event)
        elif not self._superseded:
            raise NoSuchRun("results came before their run was opened")

    def runs_of_project(self, experiment: str) -> list[Run]:
        """Returns the visible runs of this project in an experiment, the oldest first."""
        with server.first_access():
            named = self._client.get_experiment_by_name(experiment)
        return self._search(_has({PROJECT: server.project()}), named.experiment_id)[::-1] if named else []

    def _start(self, event: dict[str, Any]) -> None:
        from mlflow.entities import Param, RunTag, ViewType

        with server.first_access():
            experiment = self.experiment_id = server.experiment(self._client, event["experiment"])
            self._end_dead_runs()
            before = f"tags.`{STARTS}` LIKE '%{event['id']}%'"
            sent_before = self._client.search_runs([experiment], before, ViewType.ALL)
            run = sent_before[0] if sent_before else self._unfinished(experiment, event)
            self._superseded = run is not None and run.info.lifecycle_stage == "deleted"
            if self._superseded:
                self.run_id = None
                return
            tags = event["tags"] | {KEY: event["key"], DIGEST: event["digest"], PROJECT: event["project"]}
            if run is None:
                tags[STARTS] = event["id"]
                run = self._client.create_run(experiment, event["time"], tags, event["name"])
            else:
                tags[STARTS] = " ".join(dict.fromkeys([*run.data.tags[STARTS].split(), event["id"]]))
                self._client.update_run(run.info.run_id, status="RUNNING")
        self.run_id, self._last_step = run.info.run_id, self._ends_of_curves(run)
        params = [Param(name, value) for name, value in event["params"].items() if name not in run.data.params]
        self._client.log_batch(self.run_id, params=params, tags=[RunTag(*tag) for tag in tags.items()])

    def _attach(self, event: dict[str, Any]) -> None:
        of_id, of_key = f"attributes.run_id = '{event['run_id']}'", _has({KEY: event["key"], PROJECT: event["project"]})
        with server.first_access():
            runs = (event["run_id"] and self._search(of_id)) or (event["key"] and self._search(of_key))
        self._superseded, self.run_id = False, runs[0].info.run_id if runs else None
        if not runs:
            raise NoSuchRun(f"MLflow has no run {event['key'] or event['run_id']}")

    def _metrics(self, run_id: str, event: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        points = event["points"]
        if event["curve"]:
            points = [(name, step, value) for name, step, value in points if step > self._last_step.get(name, -1)]
            self._last_step |= {name: step for name, step, _ in points}
        self._client.log_batch(run_id, [Metric(name, value, event["time"], step) for name, step, value in points])

    def _files(self, run_id: str, event: dict[str, Any]) -> None:
        references = {}
        for entry in event["files"]:
            path, folder = Path(entry["path"]), entry["folder"]
            if not path.is_file():
                self.left_out.append(f"{path} no longer exists")
            elif "sha256" in entry and sha256(path) != entry["sha256"]:
                self.left_out.append(f"{path} has changed since")
            elif path.stat().st_size <= COPIED_BYTES:
                self._client.log_artifact(run_id, str(path), folder)
            else:
                facts = {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}
                references[f"{folder}/{path.name}" if folder else path.name] = facts
        if references:
            self._client.log_dict(run_id, references, REFERENCES)

    def _end(self, run_id: str, event: dict[str, Any]) -> None:
        self._client.set_terminated(run_id, event["status"], event["time"])

    def _unfinished(self, experiment: str, event: dict[str, Any]) -> Run | None:
        """Returns the run to continue: unfinished, with the same key and digest. Supersedes earlier runs of the key."""
        found = None
        for run in self._search(_has({KEY: event["key"], PROJECT: event["project"]}), experiment):
            if run.info.start_time > event["time"]:
                continue
            if found is None and run.info.status != "FINISHED" and run.data.tags.get(DIGEST) == event["digest"]:
                found = run
                continue
            self._client.set_tag(run.info.run_id, SUPERSEDED, "true")
            if run.info.status == "RUNNING":
                self._client.set_terminated(run.info.run_id, "KILLED")
            self._client.delete_run(run.info.run_id)
        return found

    def _end_dead_runs(self) -> None:
        """Marks runs of dead processes of this machine as KILLED: a killed process leaves its run RUNNING."""
        for run in self._search(f"attributes.status = 'RUNNING' and {_has({process.HOST: process.host()})}"):
            if not process.alive(run.data.tags.get(process.PROCESS, "")):
                self._client.set_terminated(run.info.run_id, "KILLED")

    def _search(self, query: str, experiment: str | None = None) -> list[Run]:
        """Returns the matching runs of one or all of our experiments, the newest first."""
        found = self._client.search_experiments(filter_string="name LIKE 'xkd-%'") if experiment is None else []
        ids = [experiment] if experiment else [one.experiment_id for one in found]
        return list(self._client.search_runs(ids, query, order_by=["start_time DESC"], max_results=MOST)) if ids else []

    def _ends_of_curves(self, run: Run) -> dict[str, int]:
        names = list(run.data.metrics)
        return {n: max(p.step for p in self._client.get_metric_history(run.info.run_id, n)) for n in names}

    @functools.cached_property
    def _client(self) -> MlflowClient:
        return server.client()


def _has(tags: dict[str, str]) -> str:
    """Returns a query for runs with these tags."""
    quoted = {name: f'"{value}"' if "'" in value else f"'{value}'" for name, value in tags.items()}
    return " and ".join(f"tags.`{name}` = {value}" for name, value in quoted.items())
