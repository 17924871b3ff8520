"""For all tests: nothing is written to MLflow, the processors are not oversubscribed, and decoders start in no time."""

import atexit
import gc
import os
from multiprocessing import forkserver
from pathlib import Path

import pytest
from filelock import FileLock

from xkd import progress

os.environ.update(XKD_TRACKING="off", OMP_NUM_THREADS="1", MPLBACKEND="Agg")
for name in ("XKD_PARAMS", "XKD_RESUME"):
    os.environ.pop(name, None)

# What modules leave is no garbage: looking through it takes a third of the time in which all tests are imported.
gc.disable()
atexit.register(gc.freeze)

MINIATURE = Path(__file__).parents[1] / "workflow" / "presets" / "miniature.yaml"
LONG = (
    *("test_all_stages", "test_plugins", "test_reruns", "test_interruptions", "test_presets", "test_docs"),
    *("test_paper_preset", "test_launcher", "test_plugin_page", "test_distributed", "test_sweeps"),
)
# Their functions run in processes of xkd.data.workers.
GUARDED = [
    "xkd.data.generate",
    "xkd.data.measure",
    "xkd.data.sharding",
    "xkd.data.transcode",
    "xkd.data.windows",
    "xkd.show.moment",
]


@pytest.fixture(scope="session", autouse=True)
def _imported_once():
    """Starts the server that these processes are forked from, with all that they import.

    A command starts it with the module of its own function; in a session of many commands, each process would import
    the modules of all others.
    """
    forkserver.set_forkserver_preload(GUARDED)
    forkserver.ensure_running()


@pytest.fixture(autouse=True)
def _normal_level():
    """Takes back the `--quiet` of commands that a test calls in its own process, where other tests follow."""
    yield
    progress.set_level("normal")


def pytest_collection_modifyitems(items):
    """Puts the files that take longest first, so that the processes of pytest-xdist end at the same time."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_collection_finish():
    """Leaves the modules that all tests have loaded alone when garbage is collected."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Returns a function that makes a folder once for all processes of pytest-xdist. Nobody writes to it: copy it."""
    session = tmp_path_factory.getbasetemp()
    session = session.parent if "PYTEST_XDIST_WORKER" in os.environ else session

    def made(name, make):
        with FileLock(session / f"{name}.lock"):
            if not (session / f"{name}.made").exists():
                make(session / name)
                (session / f"{name}.made").touch()
        return session / name

    return made


@pytest.fixture(scope="session")
def miniature(made_once):
    """Returns the folder of the miniature's prepared clips."""
    from xkd import params
    from xkd.stages import download, prepare

    def make(folder):
        download.run(params.load(MINIATURE), "miniature", folder / "raw")
        prepare.run(params.load(MINIATURE), folder / "raw" / "index.csv", folder)

    return made_once("miniature", make)
