"""MLflow in a folder of its own."""

import pytest

from xkd.tracking import run as runs


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """One database for all tests here: making it takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    """Tracking is on, and no failure of an earlier test is remembered."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XKD_TRACKING", "on")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(runs, "_quiet_until", {})
    return tmp_path


@pytest.fixture
def client(folder, tracked, monkeypatch):
    """A client of that database, which the working folder is now beside."""
    from mlflow import MlflowClient

    monkeypatch.chdir(folder)
    return MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
