"""The address of MLflow, a client for it, and its experiments."""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from xkd.files import locked

if TYPE_CHECKING:
    from mlflow import MlflowClient

PRETRAINING, EVALUATION, TABLE = "xkd-pretrain", "xkd-evaluate", "xkd-table"
DATABASE = "mlflow.db"
LIVE_SECONDS = 300.0  # a run that is younger waits on disk, unless a server is named: loading MLflow takes seconds
# MLflow's own defaults wait for minutes for a server that does not answer.
QUIET_AND_IMPATIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
# MLflow would repeat our warning of a lost server several times per minute.
QUIETER = {"mlflow": logging.WARNING, "mlflow.system_metrics": logging.ERROR, "alembic": logging.WARNING}


def off() -> bool:
    """Returns True if nothing is to be logged."""
    return os.environ.get("XKD_TRACKING", "on").lower() in ("off", "0", "false", "no")


def address() -> str:
    """Returns MLFLOW_TRACKING_URI, or the database in the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(DATABASE).absolute()}"


def shown_address() -> str:
    """Returns the address without user name and password."""
    return _without_password(address())


def reason(error: Exception) -> str:
    """Returns why MLflow failed, as part of a line."""
    return _without_password(" ".join(str(error).split()))[:200] or type(error).__name__


def worth_loading(seconds: float) -> bool:
    """Returns True if a run that began so many seconds ago appears in MLflow now, False if it waits on disk.

    It waits for another job to load MLflow for all, unless MLFLOW_TRACKING_URI names a place that others look at.
    """
    return seconds >= LIVE_SECONDS or "mlflow" in sys.modules or bool(os.environ.get("MLFLOW_TRACKING_URI"))


def is_server() -> bool:
    """Returns True if the address is that of a tracking server, False if it is that of a database."""
    return address().startswith(("http://", "https://"))


def import_mlflow() -> None:
    """Imports MLflow, which takes seconds: call it before `first_access` rather than inside."""
    for name, value in QUIET_AND_IMPATIENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    if not is_server():
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 (the client would import it)
    for name, level in QUIETER.items():
        logging.getLogger(name).setLevel(level)


def check() -> None:
    """Raises what MLflow raises if it does not answer."""
    with first_access():
        client().search_experiments(max_results=1)


def client() -> MlflowClient:
    """Returns a client of the address. Call it inside `first_access`: it creates the database if there is none."""
    import_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address())


def first_access() -> AbstractContextManager[object]:
    """Returns a lock for one process at a time: parallel first accesses damage the SQLite database they create."""
    database = re.match(r"sqlite:///([^?]+)", address())
    return locked(Path(f"{database[1]}.lock")) if database else nullcontext()


def project() -> str:
    """Returns what distinguishes runs of one key that two checkouts send to one server."""
    return os.getcwd() if os.environ.get("MLFLOW_TRACKING_URI") else "."


def experiment(known: MlflowClient, name: str) -> str:
    """Returns the id of an experiment, created if it does not exist. Call it inside `first_access`."""
    existing = known.get_experiment_by_name(name)
    return existing.experiment_id if existing else known.create_experiment(name)


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def warn(line: str) -> None:
    """Prints a line that nothing hides."""
    print(f"xkd: {line}", file=sys.stderr, flush=True)
