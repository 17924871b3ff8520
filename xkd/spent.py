"""Time and memory that a job has taken, for `benchmarks/table.py` to say where the time of a table goes."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


class Spent:
    """Counts processor seconds of this process and of its children that have ended.

    Attributes:
        work: seconds inside of `working` so far.
    """

    def __init__(self) -> None:
        self.work = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Counts what a job is for; the rest is its start and its end."""
        before = _processor_seconds()
        try:
            yield
        finally:
            self.work += _processor_seconds() - before

    def times(self) -> dict[str, float]:
        """Returns the seconds from the start of the process until now, those of work, and the most memory at once."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes, on macOS bytes
        return {
            "wall_seconds": round(time.time() - psutil.Process().create_time(), 2),
            "processor_seconds": round(_processor_seconds(), 2),
            "work_processor_seconds": round(self.work, 2),
            "peak_memory_mb": peak // (1_000_000 if sys.platform == "darwin" else 1000),
        }


def _processor_seconds() -> float:
    return sum(os.times()[:4])
