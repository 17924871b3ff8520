"""A run as stages write it: events are sent, or kept on disk while the run is young or MLflow does not answer."""

from __future__ import annotations

import math
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from xkd.files import sha256
from xkd.tracking import process, server
from xkd.tracking.delivery import send_overdue
from xkd.tracking.sender import NoSuchRun, Sender
from xkd.tracking.spool import UNSENT, Spool, path_of

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

ROWS_PER_CALL = 20  # curves are for viewing; every step is in steps.csv
PATIENCE_SECONDS, PATIENCE_FACTOR = 60.0, 20.0  # retries take at most a twentieth of the time
_quiet_until: dict[str, float] = {}  # address -> time before which a server that failed is not tried again


def start(
    experiment: str, key: str, name: str, params: dict[str, Any], tags: dict[str, Any], digest: str
) -> TrackedRun:
    """Returns a run that opens when entered (`with`), and closes as FINISHED, FAILED or KILLED when left.

    Enter it only while nothing else can be working on the same key: unfinished runs of the key are taken for dead.

    Args:
        experiment: name of the MLflow experiment, starting with "xkd-"; created if it does not exist.
        key: permanent name of the run, e.g. "pretrain/talking_digits/xkd/seed0".
        name: the name that people read.
        params: settings, flat; values are shown as text.
        tags: further facts.
        digest: short hash of everything that decides the result.
    """
    facts = {"mlflow.source.name": f"xkd {key.split('/')[0]}", **{k: str(v) for k, v in tags.items()}}
    about = {"experiment": experiment, "key": key, "name": name, "digest": digest, "project": server.project()}
    shown = {_clean(name): str(value) for name, value in params.items()}
    return TrackedRun({"event": "start", "id": uuid.uuid4().hex, **about, "params": shown, "tags": facts})


def attach(run_id: str | None, key: str = "") -> TrackedRun:
    """Returns an existing run, finished or not, to log more onto it. It is not entered (`with`).

    Args:
        run_id: MLflow's id; None if the run could not be sent when it was made.
        key: as in `start`; finds the run if the id does not. If neither does, nothing is logged.
    """
    opening = {"event": "attach", "run_id": run_id, "key": key, "project": server.project(), "time": _now()}
    run = TrackedRun(opening)
    run._unsent.append(opening)
    return run


class TrackedRun:
    """One MLflow run; see `start` and `attach`. No method raises: the first failure of tracking turns the run off.

    Attributes:
        id: MLflow's run id; None before entering, when tracking is off, and until MLflow has answered once.
        experiment_id: MLflow's id of the experiment of a run made by `start`; None while `id` is.
        off: True if nothing is logged.
    """

    def __init__(self, opening: dict[str, Any]) -> None:
        self.id: str | None = opening.get("run_id")
        self.experiment_id: str | None = None
        self.off = server.off()
        self._opening = opening
        self._unsent: list[dict[str, Any]] = []
        self._sender = Sender()
        self._spool: Spool | None = None
        self._monitor: SystemMetricsMonitor | None = None

    def __enter__(self) -> Self:
        with self._guarded():
            self._opening["tags"] |= process.tags()
            self._log(self._opening)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
        with self._guarded():
            self._stop_monitor()
            self._log({"event": "end", "status": status})
        if self._spool:
            self._spool.close()
        with self._guarded():
            if status != "KILLED" and not self.off and server.address() not in _quiet_until:
                send_overdue()

    def log_steps(self, rows: list[dict[str, Any]], key: str = "step") -> None:
        """Logs curves: each row's numbers at step `row[key]`, thinned evenly to a few rows per call.

        Rows that an interrupted part of the run has already logged are left out.
        """
        with self._guarded():
            stride = max(1, math.ceil(len(rows) / ROWS_PER_CALL))
            chosen = rows[::-1][::stride][::-1]  # counted from the end, so that the last row is always shown
            points = [point for row in chosen for point in _points(row, int(row[key])) if point[0] != key]
            self._log({"event": "metrics", "curve": True, "points": points})

    def log_metrics(self, values: dict[str, Any]) -> None:
        """Logs numbers; entries that are not numbers are left out. Call it without any now and then: time may be up."""
        with self._guarded():
            self._log({"event": "metrics", "curve": False, "points": _points(values, step=0)})

    def log_files(self, paths: Iterable[Path]) -> None:
        """Copies files, and the files inside folders, into the run's artifacts; paths that do not exist are left out.

        Files too large to be copied, such as weights, are listed in references.json with their path, size and hash.
        """
        with self._guarded():
            self._log({"event": "files", "files": [entry for path in paths for entry in _entries(Path(path))]})

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turns any failure into one warning and switches the run off: the disk may be full, or MLflow broken."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self.off = True
            server.warn(f"warning: MLflow tracking failed, continuing without it: {server.reason(error)}")

    def _log(self, event: dict[str, Any]) -> None:
        if self.off:
            return
        event["time"] = _now()
        if event.get("points") != []:
            self._unsent.append(event)
        opens = self._spool is not None or event is self._opening
        if not (opens or self._unsent):
            return
        age = (event["time"] - self._opening["time"]) / 1000
        if not (server.worth_loading(age) and self._send()):
            self._keep()
        elif opens and self.id and event["event"] != "end":
            self._start_monitor(self.id)

    def _send(self) -> bool:
        """Sends everything unsent. Returns False if MLflow fails; it is then not tried again for a while."""
        address, started = server.address(), time.monotonic()
        if started < _quiet_until.get(address, 0.0):
            return False
        try:
            self._send_kept()
            for event in self._unsent:
                self._sender.send(event)
        except NoSuchRun:
            self.off = True
        # MLflow raises its own errors and those of SQLAlchemy, the file system and the network.
        except Exception as error:  # noqa: BLE001
            now = time.monotonic()
            if address not in _quiet_until:
                server.warn(
                    f"warning: MLflow at {server.shown_address()} fails, continuing without it; runs are kept in "
                    f"{UNSENT}/, and `python -m xkd sync` sends them later: {server.reason(error)}"
                )
            _quiet_until[address] = now + max(PATIENCE_SECONDS, PATIENCE_FACTOR * (now - started))
            return False
        _quiet_until.pop(address, None)
        self._unsent.clear()
        self.id, self.experiment_id = self._sender.run_id, self._sender.experiment_id
        return True

    def _send_kept(self) -> None:
        """Sends what this run, or before its opening an earlier process of the same key, has kept on disk."""
        earlier = path_of(self._opening["key"])
        if self._spool:
            self._sender.send_all(self._spool)
            self._spool = None
            if server.address() in _quiet_until:
                server.warn("MLflow answers again; the kept events have been sent")
        elif self._opening in self._unsent and earlier.exists():
            with closing(Spool(earlier, wait=self._opening["event"] == "start")) as spool:
                Sender().send_all(spool)

    def _keep(self) -> None:
        """Moves unsent events to disk, behind the opening of the run, so that another process can send them."""
        self._stop_monitor()
        if self._spool is None:
            key = self._opening["key"]
            if self._opening["event"] == "attach":  # several processes may log onto one run at once
                key = f"{key or self._opening['run_id']} {os.getpid()}-{time.time_ns()}"
            self._spool = Spool(path_of(key))
            if self._opening not in self._unsent:
                self._unsent.insert(0, self._opening)
        while self._unsent:
            self._spool.append(_sealed(self._unsent[0]))
            del self._unsent[0]

    def _start_monitor(self, run_id: str) -> None:
        """Starts MLflow's samples of processor, memory, disk, network and GPU; the first comes after ten seconds."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        try:
            self._monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=server.address())
            self._monitor.start()
        except Exception as error:  # noqa: BLE001
            server.warn(f"warning: no system metrics: {server.reason(error)}")

    def _stop_monitor(self) -> None:
        if self._monitor:
            self._monitor.finish()
            self._monitor = None


def _entries(path: Path) -> list[dict[str, Any]]:
    """Returns a file, or the files in a folder, each with the artifact folder that it goes to."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return [{"path": str(f.resolve()), "folder": f.parent.relative_to(path.parent).as_posix()} for f in files]
    return [{"path": str(path.resolve()), "folder": None}] if path.is_file() else []


def _points(values: dict[str, Any], step: int) -> list[tuple[str, int, float]]:
    numbers = {k: v for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return [(_clean(name), step, float(value)) for name, value in numbers.items()]


def _sealed(event: dict[str, Any]) -> dict[str, Any]:
    """Adds the hash of each file, so that no other file of its name is sent in its place."""
    if event["event"] != "files":
        return event
    return event | {"files": [entry | {"sha256": sha256(Path(entry["path"]))} for entry in event["files"]]}


def _clean(name: str) -> str:
    """Replaces characters that MLflow does not allow in names: all but letters, digits and `_-. :/`."""
    return re.sub(r"[^\w\-. :/]", "_", name)


def _now() -> int:
    return int(time.time() * 1000)
