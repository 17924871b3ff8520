"""Stage `ui`: MLflow in the browser, at the table of pretraining runs."""

from __future__ import annotations

import os
import socket
import sys

from xkd.errors import UserError
from xkd.tracking import server, view

HOST = "127.0.0.1"  # MLflow has no users and no passwords: nobody else should reach it
# Ten processes otherwise, for a product that is not used here.
FEW_PROCESSES = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def run(port: int) -> None:
    """Prints the link and becomes `mlflow ui`; where MLFLOW_TRACKING_URI is a server, only prints the link into it.

    Args:
        port: of the loopback address.

    Raises:
        UserError: the port is taken, or MLflow or its database does not answer.
    """
    if not server.is_server():
        _check_free(port)
    try:
        link = view.save()
    except Exception as error:  # MLflow raises its own errors and those of SQLAlchemy, the file system and the network.
        raise UserError(f"MLflow at {server.shown_address()} does not answer: {server.reason(error)}") from error
    if server.is_server():
        print(f"Open {server.shown_address().rstrip('/')}{link}")
        return
    print(f"Open http://{HOST}:{port}{link}", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
    # Not as an argument: the address of a database may hold a password, and arguments are public.
    os.execve(sys.executable, command, os.environ | FEW_PROCESSES | {"MLFLOW_BACKEND_STORE_URI": server.address()})


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} is in use, by another MLflow perhaps: open http://{HOST}:{port}, or `python -m xkd ui --port {port + 1}`"
            ) from error
