"""For all tests: nothing is written to MLflow, and the processors are not oversubscribed."""

import os

os.environ.update(XKD_TRACKING="off", OMP_NUM_THREADS="1", MPLBACKEND="Agg")
os.environ.pop("XKD_PARAMS", None)
