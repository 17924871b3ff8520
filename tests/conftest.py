"""For all tests: nothing is written to MLflow, the processors are not oversubscribed, and decoders start in no time."""

import os
from multiprocessing import forkserver
from pathlib import Path

import pytest
from filelock import FileLock

os.environ.update(XKD_TRACKING="off", OMP_NUM_THREADS="1", MPLBACKEND="Agg")
for name in ("XKD_PARAMS", "XKD_RESUME"):
    os.environ.pop(name, None)

MINIATURE = Path(__file__).parents[1] / "workflow" / "presets" / "miniature.yaml"
# Their functions run in processes of xkd.data.workers.
GUARDED = ["xkd.data.generate", "xkd.data.sharding", "xkd.data.transcode", "xkd.data.windows", "xkd.show.moment"]


@pytest.fixture(scope="session", autouse=True)
def _imported_once():
    """Starts the server that these processes are forked from, with all that they import.

    A command starts it with the module of its own function; in a session of many commands, each process would import
    the modules of all others.
    """
    forkserver.set_forkserver_preload(GUARDED)
    forkserver.ensure_running()


@pytest.fixture(scope="session")
def miniature(tmp_path_factory):
    """Returns the folder of the miniature's prepared clips, made once for all processes of pytest-xdist: copy it."""
    from xkd import params
    from xkd.stages import download, prepare

    session = tmp_path_factory.getbasetemp()
    session = session.parent if "PYTEST_XDIST_WORKER" in os.environ else session
    made = session / "miniature"
    with FileLock(session / "miniature.lock"):
        if not (made / "manifest.csv").exists():
            download.run(params.load(MINIATURE), "miniature", made / "raw")
            prepare.run(params.load(MINIATURE), made / "raw" / "index.csv", made)
    return made
