"""Carries events to MLflow: those of a running stage at once, those of a spool later.

An event is a dict: `event` says what it is, `time` when it was (milliseconds). Each can be sent again without harm: a
run is known by the id in its `start`, MLflow drops points that it has, and points of curves that lie before the end of
what it has are left out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xkd.files import sha256
from xkd.tracking import process, server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Item = TypeVar("Item")
KEY, DIGEST, START, PROJECT, SUPERSEDED = "xkd.key", "xkd.digest", "xkd.start", "xkd.project", "xkd.superseded"
METRICS_PER_BATCH, PARAMS_PER_BATCH, PARAM_LENGTH = 1000, 100, 6000  # limits of MLflow
REFERENCES = "references.json"


class NoSuchRun(LookupError):
    """Results are for a run that MLflow does not have."""


class Sender:
    """Sends events in order. Every method raises what MLflow raises.

    Attributes:
        run_id: MLflow's id of the run that the last `start` or `attach` opened.
        experiment_id: of the run that the last `start` opened.
        points: number of points of metrics that were sent.
        files: number of files that were copied.
        left_out: files that could not be copied, and why.
    """

    def __init__(self) -> None:
        self.run_id: str | None = None
        self.experiment_id: str | None = None
        self.points = self.files = 0
        self.left_out: list[str] = []
        self._superseded = False
        self._last_step: dict[str, int] = {}

    def send(self, event: dict[str, Any]) -> None:
        """Carries out one event.

        Raises:
            NoSuchRun: results for a run that does not exist.
        """
        kinds = {
            "start": self._start,
            "attach": self._attach,
            "curve": self._curve,
            "values": self._values,
            "files": self._files,
            "references": self._references,
            "end": self._end,
        }
        server.load()
        if event["event"] in ("start", "attach") or not self._superseded:
            kinds[event["event"]](event)

    def _start(self, event: dict[str, Any]) -> None:
        with server.first_access():
            experiment = server.experiment(self._client, event["experiment"])
            self._end_dead_runs()
            run = self._begun(experiment, event["id"]) or self._unfinished(experiment, event)
            self._superseded = run is not None and run.info.lifecycle_stage == "deleted"
            if self._superseded:
                return
            tags = event["tags"] | event["process"] | {KEY: event["key"], DIGEST: event["digest"], START: event["id"]}
            tags |= {PROJECT: event["project"]}
            if run is None:
                run = self._client.create_run(experiment, event["time"], tags, event["name"])
            else:
                self._client.update_run(run.info.run_id, status="RUNNING")
                for name, value in ({START: event["id"]} | event["process"]).items():
                    self._client.set_tag(run.info.run_id, name, value)
        self.run_id, self.experiment_id = run.info.run_id, experiment
        self._last_step = self._ends_of_curves(run)
        self._params({k: v for k, v in event["params"].items() if _clean(k) not in run.data.params})

    def _attach(self, event: dict[str, Any]) -> None:
        with server.first_access():
            self.run_id = self._active(event["run_id"]) or self._newest(event)
        self._superseded = False
        if self.run_id is None:
            raise NoSuchRun(f"MLflow has no run {event['key'] or event['run_id']}")

    def _params(self, params: dict[str, Any]) -> None:
        from mlflow.entities import Param

        entries = [Param(_clean(name), str(value)[:PARAM_LENGTH]) for name, value in params.items()]
        for part in _batches(entries, PARAMS_PER_BATCH):
            self._client.log_batch(self._open_run, params=part)

    def _curve(self, event: dict[str, Any]) -> None:
        points = [point for point in event["points"] if point[1] > self._last_step.get(_clean(point[0]), -1)]
        self._points(points, event["time"])
        self._last_step |= {_clean(name): step for name, step, _ in points}

    def _values(self, event: dict[str, Any]) -> None:
        self._points(event["points"], event["time"])

    def _points(self, points: list[tuple[str, int, float]], time: int) -> None:
        from mlflow.entities import Metric

        for part in _batches(
            [Metric(_clean(name), value, time, step) for name, step, value in points], METRICS_PER_BATCH
        ):
            self._client.log_batch(self._open_run, metrics=part)
            self.points += len(part)

    def _files(self, event: dict[str, Any]) -> None:
        for entry in event["files"]:
            path = Path(entry["path"])
            if not path.is_file():
                self.left_out.append(f"{path} is gone")
            elif "sha256" in entry and sha256(path) != entry["sha256"]:
                self.left_out.append(f"{path} has changed since")
            else:
                self._client.log_artifact(self._open_run, str(path), entry["folder"])
                self.files += 1

    def _references(self, event: dict[str, Any]) -> None:
        self._client.log_dict(self._open_run, event["references"], REFERENCES)

    def _end(self, event: dict[str, Any]) -> None:
        self._client.set_terminated(self._open_run, event["status"], event["time"])

    def _begun(self, experiment: str, start: str) -> Run | None:
        """The run that this very `start` made or continued, if it was sent before."""
        from mlflow.entities import ViewType

        return next(iter(self._client.search_runs([experiment], _tag(START, start), ViewType.ALL)), None)

    def _unfinished(self, experiment: str, event: dict[str, Any]) -> Run | None:
        """The run to continue: unfinished, of the same key and digest; earlier runs of the key are put aside."""
        found = None
        for run in self._client.search_runs([experiment], _tag(KEY, event["key"]), order_by=["start_time DESC"]):
            if not _is_of(run, event["project"]) or run.info.start_time > event["time"]:
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
        """A killed process leaves its run RUNNING: nobody but the next one on its machine can know."""
        experiments = [found.experiment_id for found in self._client.search_experiments(filter_string=server.OURS)]
        query = f"attributes.status = 'RUNNING' and {_tag(process.HOST, process.host())}"
        for run in self._client.search_runs(experiments, query):
            if not process.alive(run.data.tags.get(process.PROCESS, "")):
                self._client.set_terminated(run.info.run_id, "KILLED")

    def _active(self, run_id: str | None) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            return run_id if run_id and self._client.get_run(run_id).info.lifecycle_stage == "active" else None
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _newest(self, event: dict[str, Any]) -> str | None:
        known = self._client.get_experiment_by_name(event["experiment"]) if event["key"] else None
        if known is None:
            return None
        runs = self._client.search_runs([known.experiment_id], _tag(KEY, event["key"]), order_by=["start_time DESC"])
        return next((run.info.run_id for run in runs if _is_of(run, event["project"])), None)

    def _ends_of_curves(self, run: Run) -> dict[str, int]:
        names = list(run.data.metrics)
        return {n: max(p.step for p in self._client.get_metric_history(run.info.run_id, n)) for n in names}

    @property
    def _open_run(self) -> str:
        if self.run_id is None:
            raise NoSuchRun("results came before their run was opened")
        return self.run_id

    @functools.cached_property
    def _client(self) -> MlflowClient:
        return server.client()


def _is_of(run: Run, project: str) -> bool:
    return run.data.tags.get(PROJECT, ".") == project


def _tag(name: str, value: str) -> str:
    quote = '"' if "'" in value else "'"
    return f"tags.`{name}` = {quote}{value}{quote}"


def _batches(entries: list[Item], size: int) -> Iterator[list[Item]]:
    for first in range(0, len(entries), size):
        yield entries[first : first + size]


def _clean(name: str) -> str:
    """MLflow allows letters, digits and `_-. :/` in names."""
    return re.sub(r"[^\w\-. :/]", "_", name)
