"""For all tests: nothing is written to MLflow, and the processors are not oversubscribed."""

import os

import pytest

os.environ.update(XKD_TRACKING="off", OMP_NUM_THREADS="1", MPLBACKEND="Agg")
for name in ("XKD_PARAMS", "XKD_RESUME"):
    os.environ.pop(name, None)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config, items):
    """Keeps tests that share costly fixtures in one process: those of a file, or all that look at the miniature."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    sharing = {item.path for item in items if "by_snakemake" in item.fixturenames}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("by_snakemake" if item.path in sharing else item.path.name))
