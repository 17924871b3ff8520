"""The miniature pipeline, run once for all tests that look at what it made."""

import shutil

import pytest
from engine_project import SNAKEMAKE, one_seed


@pytest.fixture(scope="session")
def finished_miniature(made_once):
    def make(folder):
        folder.mkdir()
        done = one_seed(folder / "project").call(*SNAKEMAKE, XKD_TRACKING="on")
        assert done.returncode == 0, done.stdout + done.stderr

    return made_once("finished_miniature", make) / "project"


@pytest.fixture(scope="module")
def by_snakemake(finished_miniature, tmp_path_factory):
    """A copy for a file of tests."""
    return _copied(finished_miniature, tmp_path_factory.mktemp("snakemake") / "project")


@pytest.fixture
def to_change(finished_miniature, tmp_path):
    """A copy for one test."""
    return _copied(finished_miniature, tmp_path / "project")


def _copied(made, root):
    project = one_seed(root)
    shutil.copytree(made, root, dirs_exist_ok=True)
    return project
