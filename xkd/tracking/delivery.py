"""Sends MLflow what jobs have left in `mlflow-unsent/`, and finds the runs that came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from filelock import Timeout

from xkd.progress import detail
from xkd.tracking import server
from xkd.tracking.sender import KEY, Sender
from xkd.tracking.spool import UNSENT, Spool, events_in, waiting


def send_waiting() -> None:
    """Sends every file; those that MLflow does not accept stay, and so do those of running stages."""
    for path in waiting():
        send(path)


def send_overdue() -> None:
    """Sends every file if one has been waiting for `server.LIVE_SECONDS`; what stays then waits as long again."""
    now, overdue = time.time(), False
    with suppress(OSError):  # another job sends it at this moment
        overdue = any(now - path.stat().st_mtime > server.LIVE_SECONDS for path in UNSENT.glob("*.jsonl"))
    if overdue:
        for path in waiting():  # before the first is sent: jobs that end meanwhile need not load MLflow too
            with suppress(OSError):
                os.utime(path)
        send_waiting()


def run_ids(experiment: str) -> dict[str, tuple[str, str]]:
    """Returns the ids of run and experiment of each run of this project in an experiment, by its key.

    Sends what waits first. Returns none while tracking is off or MLflow fails, and says so then.
    """
    if server.off():
        return {}
    try:
        server.check()
        send_waiting()
        found = Sender().runs_of_project(experiment)
    except Exception as error:  # noqa: BLE001 (MLflow raises its own errors and those of SQLAlchemy and the network)
        server.warn(f"warning: MLflow at {server.shown_address()} does not answer: {server.reason(error)}")
        return {}
    return {run.data.tags[KEY]: (run.info.run_id, run.info.experiment_id) for run in found}


def send(path: Path, say: Callable[[str], None] = detail) -> bool:
    """Sends a file and removes it; returns False if MLflow did not accept all of it.

    A run whose process no longer exists is closed as KILLED; the file of a running stage is left to it.

    Args:
        say: takes a line about each run and about each file that could not be copied.
    """
    sender = Sender()
    try:
        with closing(Spool(path, wait=False)) as spool:
            names = _close_dead_run(spool)
            sender.send_all(spool)
    except Timeout:
        say(f"{path.name}: in use by a running stage, which sends it")
        return True
    except Exception as error:  # noqa: BLE001 (as above)
        say(f"{path.name}: not sent: {server.reason(error)}")
        return False
    say(f"{names}: sent")
    for reason in sender.left_out:
        say(f"  not copied: {reason}")
    return True


def _close_dead_run(spool: Spool) -> str:
    """Ends a run that its process did not end; returns the keys of the runs in the file."""
    events = events_in(spool.path)
    openings = [event for event in events if event["event"] in ("start", "attach")]
    if openings and openings[-1]["event"] == "start" and events[-1]["event"] != "end":
        spool.append({"event": "end", "time": events[-1]["time"], "status": "KILLED"})
    return ", ".join(dict.fromkeys(event["key"] or event["run_id"] for event in openings)) or spool.path.name
