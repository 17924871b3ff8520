"""Stage `sync`: to MLflow what could not be sent when it was made."""

from __future__ import annotations

from pathlib import Path

from xkd.errors import UserError
from xkd.progress import track
from xkd.tracking import server
from xkd.tracking.run import send_all
from xkd.tracking.sender import Sender
from xkd.tracking.spool import FOLDER, Spool, waiting


def run() -> None:
    """Sends each file of mlflow-unsent/ and removes it; says what was sent and what was not.

    Runs whose process is gone are closed as KILLED; those of a running stage are left to it.

    Raises:
        UserError: MLflow does not answer, or did not take some of the runs. These stay where they are.
    """
    paths = waiting()
    if not paths:
        print(f"Nothing to send: {FOLDER}/ is empty")
        return
    try:
        with server.first_access():
            server.client().search_experiments(max_results=1)
    except Exception as error:  # MLflow raises its own errors and those of SQLAlchemy, the file system and the network.
        raise UserError(
            f"MLflow at {server.shown_address()} does not answer, {len(paths)} files stay in {FOLDER}/; start it or set "
            f"MLFLOW_TRACKING_URI: {server.reason(error)}"
        ) from error
    refused = [path for path in track(paths, "sync") if not _send(path)]
    print(f"{len(paths) - len(refused)} of {len(paths)} files sent to {server.shown_address()}")
    if refused:
        raise UserError(f"{len(refused)} of {len(paths)} files stay in {FOLDER}/, for the reasons above")


def _send(path: Path) -> bool:
    """Whether all of a file was sent."""
    try:
        spool = Spool(path, wait=False)
    except BlockingIOError:
        print(f"{path.name}: in use by a running stage, which sends it itself when MLflow answers")
        return True
    sender = Sender()
    try:
        names = _close_dead_run(spool)
        send_all(spool, sender)
    except Exception as error:  # noqa: BLE001
        print(f"{path.name}: not sent: {server.reason(error)}")
        return False
    finally:
        spool.close()
    print(f"{names}: {sender.points} points of metrics, {sender.files} files")
    for reason in sender.left_out:
        print(f"  not copied: {reason}")
    return True


def _close_dead_run(spool: Spool) -> str:
    """Ends a run that its process did not end; gives the keys of the runs in the file."""
    events = spool.events()
    openings = [event for event in events if event["event"] in ("start", "attach")]
    if openings and openings[-1]["event"] == "start" and events[-1]["event"] != "end":
        spool.append({"event": "end", "time": events[-1]["time"], "status": "KILLED"})
    return ", ".join(dict.fromkeys(event["key"] or event["run_id"] for event in openings)) or spool.path.name
