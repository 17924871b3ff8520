"""Work spread over processes that may hang or crash: decoders of damaged media do both."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError
from dataclasses import dataclass

from pebble import ProcessExpired, ProcessPool

SPARE_WORK = 512  # tasks handed out ahead of the one awaited: bounds the memory of finished results


@dataclass(frozen=True)
class Failure:
    """Stands in for the result of a task whose process hung or died."""

    reason: str


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def run_guarded(
    function: Callable, tasks: Sequence[tuple], seconds: Callable[[tuple], float], processes: int | None = None
) -> Iterator:
    """Yields function(*task) for every task, in order, or a `Failure`; exceptions of the function pass on.

    Args:
        function: importable by name; runs in other processes.
        seconds: how long a task may take before its process is killed.
        processes: by default one per core; never more than there are tasks.
    """
    workers = min(processes or cores(), max(len(tasks), 1))
    pool = ProcessPool(max_workers=workers, context=multiprocessing.get_context("spawn"))
    try:
        futures = {}
        for number in range(len(tasks)):
            for ahead in range(number + len(futures), min(number + SPARE_WORK, len(tasks))):
                futures[ahead] = pool.schedule(function, args=tasks[ahead], timeout=seconds(tasks[ahead]))
            yield _result(futures.pop(number))
        pool.close()
    finally:
        pool.stop()
        pool.join()


def _result(future):
    try:
        return future.result()
    except TimeoutError:
        return Failure("decoder hung")
    except ProcessExpired:
        return Failure("decoder crashed")
