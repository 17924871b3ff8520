"""What a person is told while a stage works: how far it is and when it will be done, and short remarks.

Everything goes to standard error: a bar on a terminal, a few plain lines in a log file, nothing with `--quiet`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

Item = TypeVar("Item")
Level = Literal["quiet", "normal", "verbose"]
Advance = Callable[[int], None]
Words = Callable[[float, int | None], str]
FIRST_SECONDS = 2.0  # shorter work needs no line but its last, and lines come no faster than this
SILENT_SECONDS = 300.0  # after that long, a line comes though no tenth has passed

_level: Level = "normal"


def set_level(level: Level) -> None:
    """How much is told by this process from now on."""
    global _level
    _level = level


def say(text: str) -> None:
    """A remark that --quiet hides. Results go to standard output, warnings and errors are never hidden."""
    if _level != "quiet":
        _print(text)


def _print(line: str) -> None:
    """A log on a full disk, or one that nobody reads on, is no reason to end the work."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def detail(text: str) -> None:
    """A remark that only --verbose shows."""
    if _level == "verbose":
        _print(f"xkd: {text}")


def track(iterable: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yields the items of `iterable`, showing how many are done and the time left.

    Args:
        iterable: what to go through.
        description: a few words in front of the bar or the line.
        total: number of items, where `len(iterable)` does not tell.
    """
    if total is None:
        total = len(iterable) if isinstance(iterable, Sized) else None
    with counter(description, total) as advance:
        for item in iterable:
            yield item
            advance(1)


@contextmanager
def counter(description: str, total: int | None, done: int = 0) -> Iterator[Advance]:
    """Gives a function that is called with the number of items that were done since.

    Args:
        description: a few words in front of the bar or the line.
        total: items in all, if known.
        done: items that were done before.
    """
    with _shown(description, total, done, _count, _items_bar) as advance:
        yield advance


@contextmanager
def meter(description: str, total: int | None, done: int = 0) -> Iterator[Advance]:
    """The same for bytes; any thread may call it."""
    with _shown(description, total, done, _megabytes, _bytes_bar) as advance:
        yield advance


@contextmanager
def _shown(
    description: str, total: int | None, done: int, words: Words, columns: Callable[[], tuple[ProgressColumn, ...]]
) -> Iterator[Advance]:
    if _level == "quiet":
        yield lambda _count: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(*columns(), console=Console(stderr=True)) as progress:
            task = progress.add_task(description, total=total, completed=done)
            yield lambda count: progress.advance(task, count)
    else:
        lines = _Lines(description, total, done, words)
        yield lines.advance
        lines.close()


class _Lines:
    """A line as soon as the time left can be told, then about every tenth of the way.

    Speed counts from the first item on: what comes before it is starting processes, or a connection.
    """

    def __init__(self, description: str, total: int | None, done: int, words: Words) -> None:
        self.description, self.total, self.before, self.words = description, total, done, words
        self.came = self.tenth = 0
        self.started = self.shown = time.monotonic()
        self.first: float | None = None
        self.first_came = 0
        self.silent = True
        self.lock = threading.Lock()

    def advance(self, count: int) -> None:
        with self.lock:
            self.came += count
            if self.first is None:
                self.first = self.shown = time.monotonic()
                self.first_came = self.came
            waited = time.monotonic() - self.shown
            tenth = 10 * (self.before + self.came) // self.total if self.total else self.tenth + 1
            if waited < FIRST_SECONDS or self.before + self.came == self.total:
                return
            if self.silent or tenth > self.tenth or waited >= SILENT_SECONDS:
                self.shown, self.tenth, self.silent = time.monotonic(), tenth, False
                self._print(self._state(time.monotonic() - self.first))

    def close(self) -> None:
        """The last line, of work that came to its end."""
        done, seconds = self.before + self.came, _clock(time.monotonic() - self.started)
        if self.total is not None and done == self.total:
            self._print(f"100 % ({self.words(done, self.total)}) in {seconds}")
        else:
            self._print(f"{self.words(done, None)} done in {seconds}")

    def _state(self, seconds: float) -> str:
        done, came = self.before + self.came, self.came - self.first_came
        rate = came / seconds
        if self.total is None:
            return f"{self.words(done, None)}, {self.words(rate, None)}/s"
        left = _clock((self.total - done) / rate)
        return f"{100 * done // self.total} % ({self.words(done, self.total)}), {self.words(rate, None)}/s, {left} left"

    def _print(self, state: str) -> None:
        _print(f"{self.description}: {state}")


def _count(number: float, total: int | None) -> str:
    shown = str(number) if isinstance(number, int) else f"{number:.1f}"
    return shown if total is None else f"{shown}/{total}"


def _megabytes(number: float, total: int | None) -> str:
    return f"{number / 1e6:.1f} MB" if total is None else f"{number / 1e6:.1f} of {total / 1e6:.1f} MB"


def _items_bar() -> tuple[ProgressColumn, ...]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()


def _bytes_bar() -> tuple[ProgressColumn, ...]:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    return *columns, TransferSpeedColumn(), TimeRemainingColumn()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
