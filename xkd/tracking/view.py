"""The view of the pretraining runs that `xkd ui` opens: accuracies as columns, one group per ablation."""

from __future__ import annotations

import json
import re

from xkd.tracking import server

# MLflow's "Share" button keeps a view in such a tag of the experiment, and puts its name into the link.
NAME = "xkd"
TAG = f"mlflow.sharedViewState.{NAME}"
ACCURACY = re.compile(r"(^|\.)(student|teacher)\.")
FIRST = ["0", "attributes.`Run Name`", "runDateAndNestInfo", "duration"]  # MLflow's own columns
COLUMNS, COLUMN_WIDTH = 40, 165  # pixels: names such as student.video.linear are readable


def save() -> str:
    """Writes the view, with the accuracies that there are now, and gives the part of the link behind the address.

    Raises:
        Exception: what MLflow raises if it does not answer.
    """
    server.load()
    with server.first_access():
        client = server.client()
        experiment = server.experiment(client, server.PRETRAINING)
    runs = client.search_runs([experiment])
    names = sorted({name for run in runs for name in run.data.metrics if ACCURACY.search(name)})
    columns = [f"metrics.`{name}`" for name in names[:COLUMNS]]
    ablations = {run.data.params.get("ablation") for run in runs}
    # MLflow limits a tag to 20,000 characters; what it does not show is a click away, in "Columns".
    view = {
        "selectedColumns": columns,
        "columnOrder": FIRST + columns,
        "columnWidths": dict.fromkeys(columns, COLUMN_WIDTH),
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "ablation"}]},
        "groupsExpanded": {f"param.ablation.{name}": False for name in ablations},
    }
    client.set_experiment_tag(experiment, TAG, json.dumps(view))
    # Without the last part MLflow lands on an empty page of its other product.
    return f"/#/experiments/{experiment}/runs?viewStateShareKey={NAME}&workflowType=machine_learning"
