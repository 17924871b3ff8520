"""Fixtures: MLflow in a folder of its own."""

import pytest

from xkd.tracking import run as runs
from xkd.tracking.spool import waiting


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Returns the folder of one database for all tests here: creating it takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    """Switches tracking on, and forgets failures of earlier tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XKD_TRACKING", "on")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(runs, "_quiet_until", {})
    return tmp_path


@pytest.fixture
def client(folder, tracked, monkeypatch):
    """Returns a client of that database, in whose folder the test runs; what earlier tests left unsent is gone."""
    from mlflow import MlflowClient

    monkeypatch.chdir(folder)
    for path in waiting():
        path.unlink()
    return MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
