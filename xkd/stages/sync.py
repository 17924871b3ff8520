"""Stage `sync`: sends MLflow the events that it did not accept when they happened."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from filelock import Timeout

from xkd.errors import UserError
from xkd.progress import track
from xkd.tracking import server
from xkd.tracking.sender import Sender
from xkd.tracking.spool import UNSENT, Spool, events_in, waiting


def run() -> None:
    """Sends each file of mlflow-unsent/ and removes it; prints what was sent and what was not.

    Runs whose process no longer exists are closed as KILLED; files of a running stage are left to it.

    Raises:
        UserError: MLflow does not answer, or did not accept some of the runs. Their files stay where they are.
    """
    paths = waiting()
    if not paths:
        print(f"Nothing to send: {UNSENT}/ is empty")
        return
    try:
        with server.first_access():
            server.client().search_experiments(max_results=1)
    except Exception as error:  # MLflow raises its own errors and those of SQLAlchemy, the file system and the network.
        raise UserError(
            f"MLflow at {server.shown_address()} does not answer, {len(paths)} files stay in {UNSENT}/; start it or "
            f"set MLFLOW_TRACKING_URI: {server.reason(error)}"
        ) from error
    refused = [path for path in track(paths, "sync") if not _send(path)]
    print(f"{len(paths) - len(refused)} of {len(paths)} files sent to {server.shown_address()}")
    if refused:
        raise UserError(f"{len(refused)} of {len(paths)} files stay in {UNSENT}/, for the reasons above")


def _send(path: Path) -> bool:
    """Sends a file; returns False if MLflow did not accept all of it."""
    sender = Sender()
    try:
        with closing(Spool(path, wait=False)) as spool:
            names = _close_dead_run(spool)
            sender.send_all(spool)
    except Timeout:
        print(f"{path.name}: in use by a running stage, which sends it when MLflow answers")
        return True
    except Exception as error:  # noqa: BLE001
        print(f"{path.name}: not sent: {server.reason(error)}")
        return False
    print(f"{names}: sent")
    for reason in sender.left_out:
        print(f"  not copied: {reason}")
    return True


def _close_dead_run(spool: Spool) -> str:
    """Ends a run that its process did not end; returns the keys of the runs in the file."""
    events = events_in(spool.path)
    openings = [event for event in events if event["event"] in ("start", "attach")]
    if openings and openings[-1]["event"] == "start" and events[-1]["event"] != "end":
        spool.append({"event": "end", "time": events[-1]["time"], "status": "KILLED"})
    return ", ".join(dict.fromkeys(event["key"] or event["run_id"] for event in openings)) or spool.path.name
