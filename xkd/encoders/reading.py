"""Clips of media files for encoders: cut, decoded and scaled by other processes while the encoders compute.

Decoders of damaged media hang or crash, which those processes may.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from xkd.data import windows
from xkd.data.tracks import Cut
from xkd.data.windows import Cutting, Survey, Window
from xkd.data.workers import Failure, cores, run_guarded, seconds_allowed
from xkd.progress import track

Stream = tuple[Window, ...]


class Clip(NamedTuple):
    """Clip `number` of a file: frames (T, H, W, 3) uint8 or samples (S,) float32 of each window."""

    file: str
    number: int
    values: dict[Window, np.ndarray]


class Position(NamedTuple):
    """A place in the sequence of all clips: `clips` of them come before in `file`, and all of earlier files."""

    file: str
    clips: int


class _Task(NamedTuple):
    """Clips of a stream that are read at once, by their numbers."""

    file: str
    stream: Stream
    clips: range


def surveyed(
    files: Sequence[str], cutting: Cutting, workers: int | None = None
) -> tuple[dict[str, Survey], dict[str, str]]:
    """Returns the clips that each file will give, and for files that cannot be read the reason.

    Args:
        files: their paths.
        cutting: how they are cut.
        workers: processes; by default one per core.
    """
    results = run_guarded(windows.survey, [(file, cutting) for file in files], seconds_allowed, workers)
    found = list(zip(files, track(results, "files", len(files)), strict=True))
    good = {file: result for file, result in found if isinstance(result, Survey)}
    return good, {file: _reason(result) for file, result in found if not isinstance(result, Survey)}


def clips_of(
    surveys: Mapping[str, Survey],
    cutting: Cutting,
    faults: dict[str, str],
    workers: int | None = None,
    begin: Position | None = None,
) -> Iterator[Clip]:
    """Reads all clips, file by file, in order. They wait in a short queue while the caller computes.

    Args:
        surveys: of the files.
        cutting: as they were surveyed with.
        faults: a file that cannot be read further is added, with the reason; those that are in it are not read.
        workers: processes that decode; by default one per core.
        begin: with which clip; None: with the first one.
    """
    tasks = list(_tasks(surveys, cutting, faults, begin))
    calls = [(task.file, task.stream, _begins(task, surveys[task.file], cutting)) for task in tasks]
    ahead = 2 * (workers or cores()) + 2  # enough that no process waits, and few enough for the memory
    results = run_guarded(windows.read_clips, calls, seconds_allowed, workers, spare=ahead)
    waiting: dict[Stream, deque[tuple[int, Cut, int]]] = {stream: deque() for stream in cutting.streams}
    for (file, stream, numbers), result in zip(tasks, results, strict=True):
        if not isinstance(result, Cut):
            faults.setdefault(file, _reason(result))
        elif file not in faults:
            new = _clips_done(file, begin)
            waiting[stream].extend((number, result, place) for place, number in enumerate(numbers) if number >= new)
        if file in faults:
            for queue in waiting.values():
                queue.clear()
        while all(waiting.values()):
            yield _side_by_side(file, {stream: queue.popleft() for stream, queue in waiting.items()})


def batches(clips: Iterator[Clip], size: int) -> Iterator[list[Clip]]:
    """Groups clips, also those of several files."""
    while batch := list(itertools.islice(clips, size)):
        yield batch


def _tasks(
    surveys: Mapping[str, Survey], cutting: Cutting, faults: Mapping[str, str], begin: Position | None
) -> Iterator[_Task]:
    """Lists what is read: of each file its streams side by side, in the order in which they begin.

    A task is the same wherever the work begins, since frames may depend on where decoding a damaged file began.
    """
    files = list(surveys)
    for file in files[files.index(begin.file) if begin else 0 :]:
        pieces = []
        for stream in cutting.streams if file not in faults else ():
            step, count = windows.clips_at_once(stream, cutting.stride), surveys[file].clips
            numbers = (range(first, min(first + step, count)) for first in range(0, count, step))
            pieces += [_Task(file, stream, some) for some in numbers if some.stop > _clips_done(file, begin)]
        yield from sorted(pieces, key=lambda piece: piece.clips.start)


def _clips_done(file: str, begin: Position | None) -> int:
    return begin.clips if begin and begin.file == file else 0


def _begins(task: _Task, survey: Survey, cutting: Cutting) -> list[int]:
    window = task.stream[0]
    return cutting.begins(window, task.clips, survey.delay if window.modality == "audio" else 0.0)


def _side_by_side(file: str, parts: Mapping[Stream, tuple[int, Cut, int]]) -> Clip:
    """Returns the clip whose part in each stream is at a place of a cut."""
    (number, *_), *_ = parts.values()
    values = {window: window.of(cut, place) for stream, (_, cut, place) in parts.items() for window in stream}
    return Clip(file, number, values)


def _reason(result: object) -> str:
    return result.reason if isinstance(result, Failure) else str(result)
