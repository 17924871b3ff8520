"""MLflow, as a place to browse: results never depend on it, and its failures never stop a stage.

Runs go to `sqlite:///mlflow.db` unless MLFLOW_TRACKING_URI says otherwise; XKD_TRACKING=off turns tracking off. A key
such as "pretrain/talking_digits/xkd/seed0" names a run for good: an unfinished run of the same digest (settings, data,
code) is continued, any other of that key is marked superseded and hidden, so that one row per key is seen. What cannot
be sent is kept in `mlflow-unsent/` until the server answers again, or `xkd sync` sends it. See docs/mlflow.md.
"""

from xkd.tracking.run import Run, attach, start
from xkd.tracking.server import EVALUATION, PRETRAINING, TABLE

__all__ = ["EVALUATION", "PRETRAINING", "TABLE", "Run", "attach", "start"]
