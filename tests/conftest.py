"""For all tests: nothing is written to MLflow, the processors are not oversubscribed, and decoders start in no time."""

import os
from multiprocessing import forkserver

import pytest

os.environ.update(XKD_TRACKING="off", OMP_NUM_THREADS="1", MPLBACKEND="Agg")
for name in ("XKD_PARAMS", "XKD_RESUME"):
    os.environ.pop(name, None)

# Their functions run in processes of xkd.data.workers.
GUARDED = ["xkd.data.generate", "xkd.data.sharding", "xkd.data.transcode", "xkd.data.windows", "xkd.show.moment"]


@pytest.fixture(scope="session", autouse=True)
def _imported_once():
    """Starts the server that these processes are forked from, with all that they import.

    A command starts it with the module of its one function; in a session of many, each process would import the rest anew.
    """
    forkserver.set_forkserver_preload(GUARDED)
    forkserver.ensure_running()
