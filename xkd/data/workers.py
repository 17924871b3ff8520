"""Runs tasks in processes that may hang or crash: decoders of damaged media do both."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

from pebble import ProcessExpired, ProcessFuture, ProcessPool

Outcome = TypeVar("Outcome")
TaskArguments = TypeVarTuple("TaskArguments")

FILE_SECONDS, SECONDS_PER_MEGABYTE = 300.0, 4.0  # a decoder that takes longer hangs; hours of video may be few bytes
SPARE_WORK = 512  # tasks handed out ahead of the one awaited: bounds the memory of finished results


@dataclass(frozen=True)
class Failure:
    """Replaces the result of a task whose process hung or died."""

    reason: str


def cores() -> int:
    """Returns the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def seconds_allowed(task: tuple[str, *tuple[Any, ...]]) -> float:
    """Returns the time allowed for decoding the file that a task's first argument names."""
    try:
        size = Path(task[0]).stat().st_size
    except (OSError, ValueError):  # the task itself will say what is wrong with the file
        size = 0
    return FILE_SECONDS + SECONDS_PER_MEGABYTE * size / 1e6


def run_guarded(
    function: Callable[[*TaskArguments], Outcome],
    tasks: Sequence[tuple[*TaskArguments]],
    seconds: Callable[[tuple[*TaskArguments]], float],
    processes: int | None = None,
    spare: int = SPARE_WORK,
) -> Iterator[Outcome | Failure]:
    """Yields function(*task) for every task, in order, or a `Failure`; exceptions of the function pass on.

    Args:
        function: importable by name; runs in other processes.
        seconds: how long a task may take before its process is killed.
        processes: by default one per core; never more than there are tasks.
        spare: tasks handed out ahead of the one awaited, whose results may have to be kept.
    """
    workers = min(processes or cores(), max(len(tasks), 1))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    pool = ProcessPool(max_workers=workers, context=context)
    try:
        futures: dict[int, ProcessFuture[Outcome]] = {}
        for number in range(len(tasks)):
            for ahead in range(number + len(futures), min(number + spare, len(tasks))):
                futures[ahead] = pool.schedule(function, args=tasks[ahead], timeout=seconds(tasks[ahead]))
            result = _outcome(futures.pop(number))
            yield result
        pool.close()
    finally:
        pool.stop()
        pool.join()


def _outcome(future: ProcessFuture[Outcome]) -> Outcome | Failure:
    try:
        return future.result()
    except TimeoutError:
        return Failure("decoder hung")
    except ProcessExpired:
        return Failure("decoder crashed")
