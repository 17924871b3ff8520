"""The miniature pipeline, run once for all tests that look at what it made."""

import pytest
from engine_project import SNAKEMAKE, one_seed


@pytest.fixture(scope="session")
def by_snakemake(tmp_path_factory):
    project = one_seed(tmp_path_factory.mktemp("snakemake") / "project")
    done = project.call(*SNAKEMAKE, XKD_TRACKING="on")
    assert done.returncode == 0, done.stdout + done.stderr
    return project
