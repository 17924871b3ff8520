import subprocess
import sys
import time

import pytest

from benchmarks.table import Job, scheduled
from xkd.spent import Spent


def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_work_counts_what_happens_inside_and_in_processes_that_ended():
    spent = Spent()
    burn(0.1)
    with spent.working():
        burn(0.05)
        code = "import time\nwhile time.process_time() < 0.1: pass"
        subprocess.run([sys.executable, "-c", code], check=True)
    work = spent.times()["work_processor_seconds"]
    assert work >= 0.14
    burn(0.05)
    after = spent.times()
    assert after["work_processor_seconds"] == work
    assert after["processor_seconds"] >= work + 0.1
    assert after["wall_seconds"] >= 0.2
    assert after["peak_memory_mb"] > 5


@pytest.mark.parametrize(("cores", "seconds"), [(1, 11), (2, 6), (16, 5)])
def test_an_estimate_lets_evaluations_wait_for_their_run_and_for_all_trainings(cores, seconds):
    trainings = [(Job(wall, None), [Job(1, None)]) for wall in (4, 2, 2)]
    assert scheduled(trainings, cores) == seconds
