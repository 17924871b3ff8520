"""Stage `ui`: opens MLflow at a view of the pretraining runs: accuracies as columns, one group per ablation."""

from __future__ import annotations

import json
import os
import re
import socket
import sys

from xkd.errors import UserError
from xkd.tracking import server
from xkd.tracking.delivery import send_waiting

HOST = "127.0.0.1"  # MLflow has no users and no passwords: nobody else should reach it
# MLflow would otherwise start ten processes for a product that is not used here.
FEW_PROCESSES = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
# MLflow's "Share" button stores a view in such a tag of the experiment, and puts its name into the link.
VIEW = "xkd"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
ACCURACY = re.compile(r"(^|\.)(student|teacher)\.")
OWN_COLUMNS = ["0", "attributes.`Run Name`", "runDateAndNestInfo", "duration"]  # MLflow's
MOST_COLUMNS, COLUMN_PIXELS = 40, 165  # names such as student.video.linear are readable


def run(port: int) -> None:
    """Sends what waits, prints the link and becomes `mlflow ui`; a server that MLFLOW_TRACKING_URI names runs already.

    Args:
        port: port on the loopback address.

    Raises:
        UserError: the port is taken, or MLflow or its database does not answer.
    """
    if not server.is_server():
        _check_port(port)
    try:
        server.check()
        send_waiting()
        link = _save_view()
    except Exception as error:  # MLflow raises its own errors and those of SQLAlchemy, the file system and the network.
        raise UserError(f"MLflow at {server.shown_address()} does not answer: {server.reason(error)}") from error
    if server.is_server():
        print(f"Open {server.shown_address().rstrip('/')}{link}")
        return
    print(f"Open http://{HOST}:{port}{link}", flush=True)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(port), "--workers", "1"]
    # Not as an argument: the address of a database may contain a password, and arguments are public.
    os.execve(sys.executable, command, os.environ | FEW_PROCESSES | {"MLFLOW_BACKEND_STORE_URI": server.address()})


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} is in use, perhaps by another MLflow: open http://{HOST}:{port}, or run "
                f"`python -m xkd ui --port {port + 1}`"
            ) from error


def _save_view() -> str:
    """Writes the view, with the accuracies that exist now, and returns the part of the link behind the address."""
    server.import_mlflow()
    with server.first_access():
        client = server.client()
        experiment = server.experiment(client, server.PRETRAINING)
    runs = client.search_runs([experiment])
    names = sorted({name for run in runs for name in run.data.metrics if ACCURACY.search(name)})
    columns = [f"metrics.`{name}`" for name in names[:MOST_COLUMNS]]
    ablations = {run.data.params.get("ablation") for run in runs}
    # MLflow limits a tag to 20,000 characters; further columns are one click away, in "Columns".
    view = {
        "selectedColumns": columns,
        "columnOrder": OWN_COLUMNS + columns,
        "columnWidths": dict.fromkeys(columns, COLUMN_PIXELS),
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "ablation"}]},
        "groupsExpanded": {f"param.ablation.{name}": False for name in ablations},
    }
    client.set_experiment_tag(experiment, VIEW_TAG, json.dumps(view))
    # Without the last part MLflow opens an empty page of its other product.
    return f"/#/experiments/{experiment}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
