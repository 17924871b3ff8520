"""For all tests: nothing is written to MLflow, and the processors are not oversubscribed."""

import os

os.environ.update(XKD_TRACKING="off", OMP_NUM_THREADS="1", MPLBACKEND="Agg")
for name in ("XKD_PARAMS", "XKD_RESUME"):
    os.environ.pop(name, None)
