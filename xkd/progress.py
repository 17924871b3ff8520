"""Tells a person how far a stage is and when it will be done, and prints short remarks.

Everything goes to standard error: a bar on a terminal, a few plain lines in a log file, nothing with `--quiet`. Counts,
speed and time left are rich's in both.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

Tracked = TypeVar("Tracked")
Level = Literal["quiet", "normal", "verbose"]
Advance = Callable[[int], None]
FIRST_SECONDS = 2.0  # shorter work prints its last line only, and lines are at least this far apart
SILENT_SECONDS = 300.0  # after this time a line is printed even if no tenth has passed
ALL_SECONDS = 1e9  # speed is an average over the last 1000 advances, however long they took

_level: Level = "normal"


def set_level(level: Level) -> None:
    """Sets how much this process prints from now on."""
    global _level
    _level = level


def say(text: str) -> None:
    """Prints a remark that --quiet hides. Results go to standard output; warnings and errors are never hidden."""
    if _level != "quiet":
        _print(text)


def detail(text: str) -> None:
    """Prints a remark that only --verbose shows."""
    if _level == "verbose":
        _print(f"xkd: {text}")


def track(iterable: Iterable[Tracked], description: str, total: int | None = None) -> Iterator[Tracked]:
    """Yields the items of `iterable`, showing how many are done and the time left.

    Args:
        iterable: the items.
        description: a few words in front of the bar or the line.
        total: number of items; by default `len(iterable)`, if it has a length.
    """
    if total is None:
        total = len(iterable) if isinstance(iterable, Sized) else None
    with counter(description, total) as advance:
        for item in iterable:
            yield item
            advance(1)


@contextmanager
def counter(description: str, total: int | None, done: int = 0, seconds: float | None = None) -> Iterator[Advance]:
    """Yields a function to call with the number of items done since the last call.

    Args:
        description: a few words in front of the bar or the line.
        total: number of items, if known.
        done: number of items done before.
        seconds: of media that an item stands for; their hours are shown, too.
    """
    from rich.progress import MofNCompleteColumn

    hours = (_hours_column(seconds),) if seconds else ()
    with _shown(description, total, done, MofNCompleteColumn(), *hours) as advance:
        yield advance


def _hours_column(seconds: float) -> ProgressColumn:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Hours(ProgressColumn):
        def render(self, task: Task) -> Text:
            done, total = (count * seconds / 3600 for count in (task.completed, task.total or 0))
            return Text(f"({done:.2f}/{total:.2f} h of media)", style="progress.download")

    return Hours()


@contextmanager
def meter(description: str, total: int | None, done: int = 0) -> Iterator[Advance]:
    """Does what `counter` does, for bytes; any thread may call the function."""
    from rich.progress import DownloadColumn, TransferSpeedColumn

    with _shown(description, total, done, DownloadColumn(), TransferSpeedColumn()) as advance:
        yield advance


@contextmanager
def _shown(description: str, total: int | None, done: int, *amounts: ProgressColumn) -> Iterator[Advance]:
    if _level == "quiet":
        yield lambda _count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn

    left = () if total is None else ("left:", TimeRemainingColumn())
    texts = (TaskProgressColumn(show_speed=True), *amounts, "in", TimeElapsedColumn(), *left)
    title, bar = "{task.description}:", BarColumn()
    console, terminal = Console(stderr=True), sys.stderr.isatty()
    progress = Progress(title, bar, *texts, console=console, get_time=time.monotonic, speed_estimate_period=ALL_SECONDS)
    with progress if terminal else nullcontext():  # outside of `with`, it counts and shows nothing
        task = progress.add_task(description, total=total, completed=done)
        lines = _Lines(progress, (title, *texts))
        yield (lambda count: progress.advance(task, count)) if terminal else lines.advance
    if not terminal:
        lines.print()


class _Lines:
    """Prints the texts beside a bar as lines: when the time left is known, then about every tenth of the way."""

    def __init__(self, progress: Progress, texts: tuple[str | ProgressColumn, ...]) -> None:
        self.progress, self.task, self.texts = progress, progress.tasks[0], texts
        self.shown: float | None = None
        self.tenth = -1
        self.lock = threading.Lock()

    def advance(self, count: int) -> None:
        """Counts items, and prints a line if it is time for one."""
        with self.lock:
            self.progress.advance(self.task.id, count)
            now, total = time.monotonic(), self.task.total
            if self.shown is None:  # the first item says nothing about the speed
                self.shown = now
            tenth = int(10 * self.task.completed / total) if total else self.tenth + 1
            waited = now - self.shown
            if waited >= FIRST_SECONDS and not self.task.finished and (tenth > self.tenth or waited >= SILENT_SECONDS):
                self.shown, self.tenth = now, tenth
                self.print()

    def print(self) -> None:
        """Prints one line."""
        parts = [
            text.format(task=self.task) if isinstance(text, str) else text.render(self.task) for text in self.texts
        ]
        _print(" ".join(str(part).strip() for part in parts))


def _print(line: str) -> None:
    with suppress(OSError):  # a log on a full disk, or one that nobody reads any more, is no reason to end the work
        print(line, file=sys.stderr, flush=True)
