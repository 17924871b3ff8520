"""MLflow, as a place to browse: results never depend on it, and its failures never stop a stage.

Runs go to `sqlite:///mlflow.db` unless MLFLOW_TRACKING_URI says otherwise; XKD_TRACKING=off turns tracking off. A key
such as "pretrain/talking_digits/xkd/seed0" names a run for good: an unfinished run of the same digest (settings, data,
code) is continued, any other of that key is marked superseded and hidden, so that one row per key is seen.
"""

from __future__ import annotations

import fcntl
import functools
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Self

DEFAULT_URI = "sqlite:///mlflow.db"
LOCK = ".mlflow-init.lock"
KEY, DIGEST, SUPERSEDED = "xkd.key", "xkd.digest", "xkd.superseded"
ROWS_PER_CALL = 20  # a curve to look at; every step is in steps.csv
# A server that does not answer is given up on after seconds, not minutes.
QUIET_AND_IMPATIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
METRICS_PER_BATCH, PARAMS_PER_BATCH, PARAM_LENGTH = 1000, 100, 6000  # limits of MLflow


def start(experiment: str, key: str, name: str, params: dict, tags: dict, digest: str) -> Run:
    """A run that opens when entered (`with`), and closes as FINISHED, FAILED or KILLED when left.

    Enter it only while nothing else can be working on the same key: unfinished runs of the key are taken for dead.

    Args:
        experiment: name of the MLflow experiment, made if it does not exist.
        key: what this run is, for good, e.g. "pretrain/talking_digits/xkd/seed0".
        name: what people read.
        params: settings, flat; values are shown as text.
        tags: further facts.
        digest: short hash of all that decides the result.
    """
    return Run(opening=(experiment, key, name, params, tags, digest))


def attach(run_id: str) -> Run:
    """A run that exists already, finished or not, to log more onto it."""
    return Run(run_id=run_id)


def _guarded(method):
    """Turns any failure into one warning and switches the run off."""

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        if self.off:
            return None
        try:
            return method(self, *args, **kwargs)
        # MLflow raises its own errors and those of SQLAlchemy, the file system and the network.
        except Exception as error:  # noqa: BLE001
            self.off = True
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            print(f"xkd: warning: MLflow tracking failed, going on without it: {reason}", file=sys.stderr, flush=True)
            return None

    return wrapper


class Run:
    """One MLflow run; see `start` and `attach`. No method raises.

    Attributes:
        id: MLflow's run id; None before entering, and when tracking is off or failed.
    """

    def __init__(self, opening: tuple | None = None, run_id: str | None = None) -> None:
        self.id = run_id
        self.off = os.environ.get("XKD_TRACKING", "on").lower() in ("off", "0", "false", "no")
        self._opening = opening
        self._last_step = -1

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            status = "FINISHED"
        else:
            status = "FAILED" if issubclass(kind, Exception) else "KILLED"
        self._close(status)

    @_guarded
    def log_steps(self, rows: list[dict], key: str = "step") -> None:
        """Logs curves: each row's numbers at step `row[key]`, thinned evenly to a few rows per call.

        Rows that an interrupted part of the run has logged already are left out.
        """
        rows = [row for row in rows if row[key] > self._last_step]
        stride = max(1, math.ceil(len(rows) / ROWS_PER_CALL))
        # From the back, so that the last row always shows.
        for row in rows[::-1][::stride][::-1]:
            self._queue_metrics({k: v for k, v in row.items() if k != key}, int(row[key]))
        self._send_metrics()

    @_guarded
    def log_metrics(self, values: dict, step: int | None = None) -> None:
        """Logs numbers; entries that are no numbers are left out."""
        self._queue_metrics(values, step or 0)
        self._send_metrics()

    @_guarded
    def log_files(self, paths: Iterable[Path]) -> None:
        """Copies files into the run's artifacts; files that do not exist are left out."""
        for path in map(Path, paths):
            if path.is_file():
                self._client.log_artifact(self.id, str(path))

    @_guarded
    def _open(self) -> None:
        experiment, key, name, params, tags, digest = self._opening
        _import_mlflow()
        with _first_access():
            folder = _experiment(self._client, experiment)
            self.id = self._resume(folder, key, digest)
            if self.id:
                return
            tags = {KEY: key, DIGEST: digest, **{k: str(v) for k, v in tags.items()}}
            run_id = self._client.create_run(folder, tags=tags, run_name=name).info.run_id
        self._log_params(run_id, params)
        self.id = run_id

    @_guarded
    def _close(self, status: str) -> None:
        self._client.set_terminated(self.id, status)

    def _resume(self, folder: str, key: str, digest: str) -> str | None:
        """The id of an unfinished run with this key and digest; other runs of the key are put aside."""
        found = None
        for run in self._client.search_runs([folder], f"tags.`{KEY}` = '{key}'", order_by=["start_time DESC"]):
            unfinished = run.info.status != "FINISHED"
            if unfinished and found is None and run.data.tags.get(DIGEST) == digest:
                found = run.info.run_id
                self._client.update_run(found, status="RUNNING")
                self._last_step = self._last_logged(run)
                continue
            self._client.set_tag(run.info.run_id, SUPERSEDED, "true")
            if run.info.status == "RUNNING":
                self._client.set_terminated(run.info.run_id, "KILLED")
            self._client.delete_run(run.info.run_id)
        return found

    def _last_logged(self, run) -> int:
        """The last step of the run's curves; metrics that have no curve sit at step 0."""
        histories = (self._client.get_metric_history(run.info.run_id, name) for name in run.data.metrics)
        return max((point.step for history in histories for point in history), default=-1)

    def _log_params(self, run_id: str, params: dict) -> None:
        from mlflow.entities import Param

        entries = [Param(_clean(name), str(value)[:PARAM_LENGTH]) for name, value in params.items()]
        for part in _batches(entries, PARAMS_PER_BATCH):
            self._client.log_batch(run_id, params=part)

    def _queue_metrics(self, values: dict, step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        numbers = {k: v for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
        self._queue += [Metric(_clean(name), float(value), now, step) for name, value in numbers.items()]

    def _send_metrics(self) -> None:
        queue, self._queue = self._queue, []
        for part in _batches(queue, METRICS_PER_BATCH):
            self._client.log_batch(self.id, metrics=part)

    @functools.cached_property
    def _queue(self) -> list:
        return []

    @functools.cached_property
    def _client(self):
        return _import_mlflow().MlflowClient(tracking_uri=_uri())


def _import_mlflow():
    """Imported where used, and before the lock is held: it takes seconds."""
    for name, value in QUIET_AND_IMPATIENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return mlflow


def _uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


@contextmanager
def _first_access() -> Iterator[None]:
    """One process at a time: parallel first accesses break the database that they make."""
    with open(LOCK, "w") if _uri().startswith("sqlite") else nullcontext() as handle:
        if handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _experiment(client, name: str) -> str:
    existing = client.get_experiment_by_name(name)
    return existing.experiment_id if existing else client.create_experiment(name)


def _batches(entries: list, size: int) -> Iterator[list]:
    for first in range(0, len(entries), size):
        yield entries[first : first + size]


def _clean(name: str) -> str:
    """MLflow allows letters, digits and `_-. :/` in names."""
    return re.sub(r"[^\w\-. :/]", "_", name)
