"""The miniature pipeline, run once for all tests that look at what it made."""

import shutil

import pytest
from engine_project import SNAKEMAKE, one_seed


@pytest.fixture(scope="session")
def by_snakemake(made_once, tmp_path_factory):
    def make(folder):
        folder.mkdir()
        done = one_seed(folder / "project").call(*SNAKEMAKE, XKD_TRACKING="on")
        assert done.returncode == 0, done.stdout + done.stderr

    made = made_once("by_snakemake", make)
    project = one_seed(tmp_path_factory.mktemp("snakemake") / "project")
    shutil.copytree(made / "project", project.root, dirs_exist_ok=True)
    return project
