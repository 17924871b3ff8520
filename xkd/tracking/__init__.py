"""Logs runs to MLflow, for browsing: results never depend on it, and its failures never stop a stage.

Runs go to `sqlite:///mlflow.db` unless MLFLOW_TRACKING_URI says otherwise; XKD_TRACKING=off turns tracking off. A key
such as "pretrain/talking_digits/xkd/seed0" identifies a run permanently: an unfinished run with the same digest
(settings, data, code) is continued; any other run with that key is marked superseded and hidden, so that each key has
one visible row. Events wait in `mlflow-unsent/` while their run is young or MLflow does not answer; then this process,
a later job, the table, `xkd ui` or `xkd sync` sends them. See docs/mlflow.md.
"""

from xkd.tracking.delivery import run_ids
from xkd.tracking.run import TrackedRun, attach, start
from xkd.tracking.server import EVALUATION, PRETRAINING, TABLE

__all__ = ["EVALUATION", "PRETRAINING", "TABLE", "TrackedRun", "attach", "run_ids", "start"]
