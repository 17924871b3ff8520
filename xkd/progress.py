"""How far a stage is and when it will be done: a bar on a terminal, a few lines in a log file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
QUIET_SECONDS = 5.0


def track(iterable: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yields the items of `iterable`, showing on standard error how many are done and the time left.

    Args:
        iterable: what to go through.
        description: a few words in front of the bar or the line.
        total: number of items, where `len(iterable)` does not tell.
    """
    if total is None:
        total = len(iterable) if hasattr(iterable, "__len__") else None
    return _bar(iterable, description, total) if sys.stderr.isatty() else _lines(iterable, description, total)


@contextmanager
def meter(description: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Gives a function that any thread calls with the number of bytes that came.

    Args:
        description: a few words in front of the bar or the line.
        total: bytes in all, if known.
        done: bytes that were there before.
    """
    draw = _bytes_bar if sys.stderr.isatty() else _bytes_lines
    with draw(description, total, done) as advance:
        yield advance


@contextmanager
def _bytes_bar(description: str, total: int | None, done: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total, completed=done)
        yield lambda count: progress.advance(task, count)


@contextmanager
def _bytes_lines(description: str, total: int | None, done: int) -> Iterator[Callable[[int], None]]:
    started, lock = time.monotonic(), threading.Lock()
    came, shown = 0, started

    def state() -> str:
        seconds = time.monotonic() - started
        here, rate = (done + came) / 1e6, came / 1e6 / max(seconds, 1e-9)
        if total is None or came <= 0:
            return f"{here:.1f} MB, {rate:.1f} MB/s"
        left = _clock((total - done - came) / came * seconds)
        return f"{here:.1f} of {total / 1e6:.1f} MB, {rate:.1f} MB/s, {left} left"

    def advance(count: int) -> None:
        nonlocal came, shown
        with lock:
            came += count
            if time.monotonic() - shown >= QUIET_SECONDS:
                shown = time.monotonic()
                print(f"{description}: {state()}", file=sys.stderr, flush=True)

    yield advance
    print(f"{description}: {(done + came) / 1e6:.1f} MB in {_clock(time.monotonic() - started)}", file=sys.stderr)


def _bar(iterable: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    times = TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    with Progress(*columns, *times, console=Console(stderr=True)) as progress:
        yield from progress.track(iterable, total=total, description=description)


def _lines(iterable: Iterable[Item], description: str, total: int | None) -> Iterator[Item]:
    """A line about every tenth of the way, but not more often than every few seconds."""
    started = shown = time.monotonic()
    tenth = 0
    for done, item in enumerate(iterable, start=1):
        yield item
        now = time.monotonic()
        last = done == total
        passed = total is None or done * 10 // total > tenth
        if last or (passed and now - shown >= QUIET_SECONDS):
            tenth = done * 10 // total if total else 0
            shown = now
            print(f"{description}: {_state(done, total, now - started)}", file=sys.stderr, flush=True)


def _state(done: int, total: int | None, seconds: float) -> str:
    if total is None:
        return f"{done} done in {_clock(seconds)}"
    if done == total:
        return f"100 % ({done}/{total}) in {_clock(seconds)}"
    left = _clock(seconds / done * (total - done))
    return f"{100 * done // total} % ({done}/{total}), {done / seconds:.1f}/s, {left} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
