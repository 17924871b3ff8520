"""Sixteen processes begin at once on a database that does not exist; some are killed."""

import os
import subprocess
import sys

from xkd import tracking

PROCESSES, KILLED = 16, 4
# Forked after the import, so that all reach the database at the same moment.
SCRIPT = """
import os, pathlib, signal, sys, time
from xkd import tracking
from xkd.tracking import server

def work(number):
    with tracking.start("xkd-digits", f"run{number}", f"run {number}", {"seed": number}, {}, "d") as run:
        run.log_steps([{"step": n, "loss": float(n)} for n in range(3)])
        if number < int(sys.argv[2]):
            pathlib.Path(f"ready{number}").touch()
            signal.pause()
        run.log_steps([{"step": n, "loss": float(n)} for n in range(3, 6)])

server.import_mlflow()
children = []
for number in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        work(number)
        os._exit(0)
    children.append(child)
doomed, others = children[:int(sys.argv[2])], children[int(sys.argv[2]):]
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in others])
while len(list(pathlib.Path().glob("ready*"))) < len(doomed):
    time.sleep(0.1)
for child in doomed:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_no_run_is_lost_and_none_runs_on_without_its_process(tracked):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    # Python 3.12 warns of forks beside threads, of which Arrow has one.
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT, str(PROCESSES), str(KILLED)]
    done = subprocess.run(arguments, check=False, cwd=tracked, env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == f"{[0] * (PROCESSES - KILLED)}\n"

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tracked}/mlflow.db")
    experiment = client.get_experiment_by_name("xkd-digits").experiment_id
    before = {run.data.tags["xkd.key"]: run.info.status for run in client.search_runs([experiment])}
    assert before == {f"run{n}": "RUNNING" if n < KILLED else "FINISHED" for n in range(PROCESSES)}
    with tracking.start("xkd-digits", "run0", "run 0", {"seed": 0}, {}, "d") as run:
        run.log_steps([{"step": n, "loss": float(n)} for n in range(6)])
    after = {run.data.tags["xkd.key"]: run for run in client.search_runs([experiment])}
    assert len(after) == PROCESSES
    assert {key for key, run in after.items() if run.info.status == "KILLED"} == {"run1", "run2", "run3"}
    assert {key for key, run in after.items() if run.info.status == "RUNNING"} == set()
    assert not (tracked / "mlflow-unsent").exists()
    for number in range(PROCESSES):
        run = after[f"run{number}"]
        assert run.data.params == {"seed": str(number)}
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
        assert steps == list(range(3 if 0 < number < KILLED else 6))
