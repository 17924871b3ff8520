"""One run, as stages write it: sent at once where MLflow answers, kept on disk where it does not."""

from __future__ import annotations

import functools
import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

from xkd.files import sha256
from xkd.tracking import process, server
from xkd.tracking.sender import NoSuchRun, Sender
from xkd.tracking.spool import Spool, path_of
from xkd.tracking.system import SystemMetrics

Arguments = ParamSpec("Arguments")
ROWS_PER_CALL = 20  # a curve to look at; every step is in steps.csv
COPIED_BYTES = 10_000_000  # larger files stay where they are, and the run says where that is
PATIENCE_SECONDS, PATIENCE_FACTOR = 60.0, 20.0  # trying again costs at most a twentieth of the time
_quiet_until: dict[str, float] = {}  # by address: not to wait again for a server that has just not answered


def start(experiment: str, key: str, name: str, params: dict[str, Any], tags: dict[str, Any], digest: str) -> Run:
    """A run that opens when entered (`with`), and closes as FINISHED, FAILED or KILLED when left.

    Enter it only while nothing else can be working on the same key: unfinished runs of the key are taken for dead.

    Args:
        experiment: name of the MLflow experiment, "xkd-" in front; made if it does not exist.
        key: what this run is, for good, e.g. "pretrain/talking_digits/xkd/seed0".
        name: what people read.
        params: settings, flat; values are shown as text.
        tags: further facts.
        digest: short hash of all that decides the result.
    """
    tags = {"mlflow.source.name": f"xkd {key.split('/')[0]}", **{k: str(v) for k, v in tags.items()}}
    params = {k: str(v) for k, v in params.items()}
    return Run(
        {
            "event": "start",
            "experiment": experiment,
            "key": key,
            "name": name,
            "params": params,
            "tags": tags,
            "digest": digest,
        }
    )


def attach(run_id: str | None, experiment: str = server.PRETRAINING, key: str = "") -> Run:
    """A run that exists already, finished or not, to log more onto it.

    Args:
        run_id: MLflow's id; None if the run could not be sent when it was made.
        experiment, key: as in `start`; they find the run where the id does not. Where they do not either, nothing is
            logged.
    """
    return Run({"event": "attach", "run_id": run_id, "experiment": experiment, "key": key})


def _guarded(method: Callable[Concatenate[Run, Arguments], None]) -> Callable[Concatenate[Run, Arguments], None]:
    """Turns any failure into one warning and switches the run off: the disk is full, say, or MLflow broken."""

    @functools.wraps(method)
    def wrapper(self: Run, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        if self.off:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001
            self.off = True
            _say(f"warning: MLflow tracking failed, going on without it: {server.reason(error)}")

    return wrapper


class Run:
    """One MLflow run; see `start` and `attach`. No method raises.

    Attributes:
        id: MLflow's run id; None before entering, when tracking is off, and until MLflow has answered once.
        experiment_id: MLflow's id of the experiment that a run of `start` is in; None while `id` is.
        off: whether nothing is logged.
    """

    def __init__(self, opening: dict[str, Any]) -> None:
        self.id: str | None = opening.get("run_id")
        self.experiment_id: str | None = None
        self.off = os.environ.get("XKD_TRACKING", "on").lower() in ("off", "0", "false", "no")
        self._opening = opening
        self._sender: Sender | None = None
        self._spool: Spool | None = None
        self._system: SystemMetrics | None = None

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            status = "FINISHED"
        else:
            status = "FAILED" if issubclass(kind, Exception) else "KILLED"
        self._close(status)

    @_guarded
    def log_steps(self, rows: list[dict[str, Any]], key: str = "step") -> None:
        """Logs curves: each row's numbers at step `row[key]`, thinned evenly to a few rows per call.

        Rows that an interrupted part of the run has logged already are left out.
        """
        stride = max(1, math.ceil(len(rows) / ROWS_PER_CALL))
        # From the back, so that the last row always shows.
        chosen = rows[::-1][::stride][::-1]
        self._log("curve", points=[point for row in chosen for point in _points(row, int(row[key]), key)])

    @_guarded
    def log_metrics(self, values: dict[str, Any], step: int | None = None) -> None:
        """Logs numbers; entries that are no numbers are left out."""
        self._log("values", points=_points(values, step or 0))

    @_guarded
    def log_files(self, paths: Iterable[Path]) -> None:
        """Copies files into the run's artifacts, and the files of folders; what does not exist is left out.

        Of a file too large to be copied, such as weights, references.json says where it is, its size and its hash.
        """
        small, references = [], {}
        for path, folder in _inside(paths):
            if path.stat().st_size <= COPIED_BYTES:
                small.append({"path": str(path.resolve()), "folder": folder})
            else:
                facts = {"path": str(path.resolve()), "bytes": path.stat().st_size, "sha256": sha256(path)}
                references[f"{folder}/{path.name}" if folder else path.name] = facts
        self._log("files", files=small)
        if references:
            self._log("references", references=references)

    @_guarded
    def _open(self) -> None:
        self._opening |= {"time": _now(), "project": server.project()}
        if self._opening["event"] == "start":
            self._opening |= {"id": uuid.uuid4().hex, "process": process.tags()}
        if self._try(self._send_earlier_and_open):
            self._watch_system()
        else:
            self._keep_opening()

    def _send_earlier_and_open(self, sender: Sender) -> None:
        left = path_of(self._opening["key"])
        if left.exists():
            earlier = Spool(left, wait=self._opening["event"] == "start")
            try:
                send_all(earlier, sender)
            finally:
                earlier.close()
        try:
            sender.send(self._opening)
        except NoSuchRun:
            self.off = True

    def _log(self, event: str, **content: Any) -> None:
        if self._sender is None and self._spool is None:
            self._open()
        if self.off:
            return
        record = {"event": event, "time": _now(), **content}
        if self._spool and self._try(functools.partial(send_all, self._spool)):
            self._spool = None
            self._watch_system()
            _say("MLflow answers again, what was kept has been sent")
        if self._spool is None and self._try(lambda sender: sender.send(record), self._sender):
            return
        spool = self._spool or self._keep_opening()
        spool.append(_sealed(record))

    def _try(self, action: Callable[[Sender], None], sender: Sender | None = None) -> bool:
        """Whether `action` went well; where not, nothing is tried for a while."""
        started = time.monotonic()
        if started < _quiet_until.get(server.address(), 0.0):
            return False
        sender = sender or Sender()
        try:
            action(sender)
        # MLflow raises its own errors and those of SQLAlchemy, the file system and the network.
        except Exception as error:  # noqa: BLE001
            now = time.monotonic()
            if server.address() not in _quiet_until:
                _say(
                    f"warning: MLflow at {server.shown_address()} fails, going on without it; runs are kept in "
                    f"mlflow-unsent/, and `python -m xkd sync` sends them later: {server.reason(error)}"
                )
            _quiet_until[server.address()] = now + max(PATIENCE_SECONDS, PATIENCE_FACTOR * (now - started))
            return False
        _quiet_until.pop(server.address(), None)
        self._sender, self.id, self.experiment_id = sender, sender.run_id, sender.experiment_id
        return True

    def _keep_opening(self) -> Spool:
        """Begins to keep the run on disk: its opening first, so that what follows can be sent by another process."""
        self._leave_system()
        key = self._opening["key"]
        if self._opening["event"] == "attach":
            # Several may be logged onto one run at once.
            spool = self._spool = Spool(path_of(f"{key or self.id} {os.getpid()}-{time.time_ns()}"))
        else:
            spool = self._spool = Spool(path_of(key))
            if self.id is None:
                self._opening["id"] = _continued(spool.events(), self._opening)
        spool.append(self._opening)
        return spool

    @_guarded
    def _close(self, status: str) -> None:
        self._leave_system()
        self._log("end", status=status)
        self._leave_system()
        if self._spool:
            self._spool.close()

    def _watch_system(self) -> None:
        if self._opening["event"] == "start" and self.id:
            self._system = SystemMetrics(self.id)

    def _leave_system(self) -> None:
        if self._system:
            self._system.stop()
            self._system = None


def send_all(spool: Spool, sender: Sender) -> None:
    """Sends every event of a spool and removes it."""
    for event in spool.events():
        sender.send(event)
    spool.remove()


def _continued(events: list[dict[str, Any]], opening: dict[str, Any]) -> str:
    """The id of the unfinished run that `opening` goes on with, if the last one kept is of the same digest."""
    last = next((event for event in reversed(events) if event["event"] == "start"), None)
    finished = any(event["event"] == "end" and event["status"] == "FINISHED" for event in events[-1:])
    known: str = last["id"] if last and last["digest"] == opening["digest"] and not finished else opening["id"]
    return known


def _inside(paths: Iterable[Path]) -> list[tuple[Path, str | None]]:
    """Files, and those within folders, each with the artifact folder that it goes to."""
    found: list[tuple[Path, str | None]] = []
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            found += [(file, file.parent.relative_to(path.parent).as_posix()) for file in files]
        elif path.is_file():
            found.append((path, None))
    return found


def _points(values: dict[str, Any], step: int, without: str = "") -> list[tuple[str, int, float]]:
    numbers = {k: v for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return [(name, step, float(value)) for name, value in numbers.items() if name != without]


def _sealed(event: dict[str, Any]) -> dict[str, Any]:
    """With the hash of each file, so that another one of its name is not sent in its place."""
    if event["event"] != "files":
        return event
    return event | {"files": [entry | {"sha256": sha256(Path(entry["path"]))} for entry in event["files"]]}


def _now() -> int:
    return int(time.time() * 1000)


def _say(line: str) -> None:
    print(f"xkd: {line}", file=sys.stderr, flush=True)
