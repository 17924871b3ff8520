"""Stage `sync`: sends MLflow the events that it did not get when they happened."""

from __future__ import annotations

from xkd.errors import UserError
from xkd.progress import track
from xkd.tracking import server
from xkd.tracking.delivery import send
from xkd.tracking.spool import UNSENT, waiting


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
        server.check()
    except Exception as error:  # MLflow raises its own errors and those of SQLAlchemy, the file system and the network.
        raise UserError(
            f"MLflow at {server.shown_address()} does not answer, {len(paths)} files stay in {UNSENT}/; start it or "
            f"set MLFLOW_TRACKING_URI: {server.reason(error)}"
        ) from error
    refused = [path for path in track(paths, "sync") if not send(path, print)]
    print(f"{len(paths) - len(refused)} of {len(paths)} files sent to {server.shown_address()}")
    if refused:
        raise UserError(f"{len(refused)} of {len(paths)} files stay in {UNSENT}/, for the reasons above")
