"""Where runs go: the address, a client for it, and the experiments."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

PRETRAINING, EVALUATION, TABLE = "xkd-pretrain", "xkd-evaluate", "xkd-table"
OURS = "name LIKE 'xkd-%'"
DATABASE = "mlflow.db"
# A server that does not answer is given up on after seconds, not minutes.
QUIET_AND_IMPATIENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
# Its own warnings of a lost server would stand beside ours, several per minute.
QUIETER = {"mlflow": logging.WARNING, "mlflow.system_metrics": logging.ERROR, "alembic": logging.WARNING}


def address() -> str:
    """MLFLOW_TRACKING_URI, or the database in the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(DATABASE).absolute()}"


def shown_address() -> str:
    """The address without user name and password."""
    return _without_password(address())


def reason(error: Exception) -> str:
    """Why MLflow failed, in part of a line."""
    return _without_password(" ".join(str(error).split()))[:200] or type(error).__name__


def is_server() -> bool:
    """Whether the address is that of a tracking server, not of a database."""
    return address().startswith(("http://", "https://"))


def load() -> None:
    """Imports MLflow, which takes seconds: better before `first_access` than within it."""
    for name, value in QUIET_AND_IMPATIENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    if not is_server():
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 (the client would import it)
    for name, level in QUIETER.items():
        logging.getLogger(name).setLevel(level)


def client() -> MlflowClient:
    """An MlflowClient of the address. Make it within `first_access`: it makes the database if there is none."""
    load()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address())


@contextmanager
def first_access() -> Iterator[None]:
    """One process at a time: parallel first accesses break the SQLite database that they make."""
    database = re.match(r"sqlite:///([^?]+)", address())
    if not database:
        yield
        return
    path = Path(database[1])
    with open(path.with_name(f"{path.name}.lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def project() -> str:
    """Tells runs of one key apart that two checkouts send to one server; the default database is a checkout's own."""
    return os.getcwd() if os.environ.get("MLFLOW_TRACKING_URI") else "."


def experiment(known: MlflowClient, name: str) -> str:
    """The id of an experiment, made if it does not exist; `known` is a client. Call it within `first_access`."""
    existing = known.get_experiment_by_name(name)
    return existing.experiment_id if existing else known.create_experiment(name)


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)
