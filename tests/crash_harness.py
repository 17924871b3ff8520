"""Kills a stage at any of its operations on files, starts it again, and compares what is there with an undisturbed run.

A stage runs in a fork. There an audit hook counts what Python does to files in the project's folder: opening for
writing, renaming, removing, linking, making and removing folders. At the chosen operation the fork kills itself, either
right before it, when everything up to there was written, or right after it, when a file that it opened is still empty.

Not counted are writes into open files, and files that native code opens (Parquet, safetensors, Arrow, FFmpeg): a kill
within them leaves a temporary file, as does one before the renaming that follows. Worker processes of `prepare` and
`download` are replaced by calls in the fork; benchmarks/kills.py kills real ones.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from forks import code_of, fork

from xkd import cli
from xkd.data import workers
from xkd.files import read_json
from xkd.training.recorder import STEP_TIMES

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
LOCKS = ("/lock", ".lock")
Tree = dict[str, object]


@dataclass(frozen=True)
class Moment:
    """Says where a stage is killed: right before its operation of a number, from 0, or right after it."""

    number: int
    after: bool = False

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} operation {self.number}"


@dataclass
class Project:
    """A folder in which stages are killed.

    Attributes:
        root: the folder; a stage starts in it.
        logs: gets the output of the stages.
    """

    root: Path
    logs: Path
    starts: dict[str, Path] = field(default_factory=dict)
    ends: dict[str, Tree] = field(default_factory=dict)
    operations: dict[str, list[str]] = field(default_factory=dict)

    def undisturbed(self, name: str, command: Sequence[str]) -> None:
        """Runs a stage from what is there, and remembers the start, the operations and the end."""
        self.starts[name] = self.logs / f"{name}.start"
        shutil.copytree(self.root, self.starts[name], symlinks=True)
        assert self._run(name, command) == 0, self.log(name)
        self.operations[name] = json.loads(self._found(name).read_text())
        self.ends[name] = tree(self.root)

    def killed(self, name: str, command: Sequence[str], moments: Sequence[Moment]) -> list[str]:
        """Starts a stage again from its start, kills it at each moment, runs it to its end, and returns what is wrong.

        Each moment counts the operations of its own process. A process that takes fewer ends undisturbed.
        """
        shutil.rmtree(self.root)
        shutil.copytree(self.starts[name], self.root, symlinks=True)
        for moment in moments:
            code = self._run(name, command, moment)
            if code not in (-signal.SIGKILL, 0):
                return [f"ended with {code} before it was killed {moment}:\n{self.log(name)[-2000:]}"]
        if code := self._run(name, command):
            return [f"the next start ended with {code}:\n{self.log(name)[-2000:]}"]
        return list(differences(tree(self.root), self.ends[name]))

    def log(self, name: str) -> str:
        """Returns what the last start of a stage said."""
        return (self.logs / f"{name}.txt").read_text()

    def _found(self, name: str) -> Path:
        return self.logs / f"{name}.operations.json"

    def _run(self, name: str, command: Sequence[str], moment: Moment | None = None) -> int:
        def start() -> None:
            os.chdir(self.root)
            _without_workers()
            watch = Watch(self.root, moment)
            sys.addaudithook(watch)
            sys.argv = ["xkd", *command]
            try:
                cli.main()
            finally:
                watch.off = True
                self._found(name).write_text(json.dumps(watch.seen))

        log = self.logs / f"{name}.txt"
        log.unlink(missing_ok=True)
        return code_of(fork(start, log))


class Watch:
    """Counts the operations of this process on files below a folder, and kills it at one of them."""

    def __init__(self, root: Path, moment: Moment | None) -> None:
        self.root, self.moment = f"{root}{os.sep}", moment
        self.seen: list[str] = []
        self.off = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.off or event not in OPERATIONS:
            return
        path, perform = OPERATIONS[event](*arguments)
        if path is None or not path.startswith(self.root) or _without_effect(event, path, arguments):
            return
        number = len(self.seen)
        self.seen.append(f"{event} {path.removeprefix(self.root)}")
        if self.moment and number == self.moment.number:
            self.off = True
            if self.moment.after:
                perform()
            os.kill(os.getpid(), signal.SIGKILL)


def _without_effect(event: str, path: str, arguments: tuple[Any, ...]) -> bool:
    """Returns whether the operation fails or leaves everything as it is, such as opening a lock that exists."""
    there = os.path.lexists(path)
    if event == "open":
        return there and path.endswith(LOCKS) and not arguments[2] & os.O_TRUNC
    if event == "os.mkdir":
        return there or not os.path.isdir(os.path.dirname(path))
    return event in ("os.remove", "os.rmdir") and not there


def _opens(path: Any, _mode: Any, flags: int) -> tuple[str | None, Callable[[], object]]:
    named = isinstance(path, str | bytes | os.PathLike) and flags & WRITING
    return (_full(path, -1) if named else None), partial(os.open, path, flags, 0o666)


def _renames(source: Any, target: Any, source_in: int, target_in: int) -> tuple[str | None, Callable[[], object]]:
    folders = {"src_dir_fd": _folder(source_in), "dst_dir_fd": _folder(target_in)}
    return _full(target, target_in), partial(os.replace, source, target, **folders)


def _links(source: Any, target: Any, source_in: int, target_in: int) -> tuple[str | None, Callable[[], object]]:
    folders = {"src_dir_fd": _folder(source_in), "dst_dir_fd": _folder(target_in)}
    return _full(target, target_in), partial(os.link, source, target, **folders)


def _of_one(function: Callable[..., object], path: Any, *others: Any) -> tuple[str | None, Callable[[], object]]:
    *others, folder = others  # type: ignore[assignment]
    return _full(path, folder), partial(function, path, *others, dir_fd=_folder(folder))


OPERATIONS: dict[str, Callable[..., tuple[str | None, Callable[[], object]]]] = {
    "open": _opens,
    "os.rename": _renames,
    "os.link": _links,
    "os.symlink": lambda source, target, folder: (
        _full(target, folder),
        partial(os.symlink, source, target, dir_fd=_folder(folder)),
    ),
    "os.remove": partial(_of_one, os.remove),
    "os.rmdir": partial(_of_one, os.rmdir),
    "os.mkdir": partial(_of_one, os.mkdir),
    "os.truncate": lambda path, length: (
        None if isinstance(path, int) else _full(path, -1),
        partial(os.truncate, path, length),
    ),
}


def _folder(number: int) -> int | None:
    return None if number == -1 else number


def _full(path: Any, folder: int) -> str:
    above = os.getcwd() if folder == -1 else os.readlink(f"/proc/self/fd/{folder}")
    return os.path.normpath(os.path.join(above, os.fsdecode(path)))


def _without_workers() -> None:
    """Lets this process do what `workers.run_guarded` gives to others."""

    def serial(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], *_: Any, **__: Any) -> Iterator[Any]:
        for task in tasks:
            yield function(*task)

    guarded = workers.run_guarded
    for module in list(sys.modules.values()):
        if getattr(module, "run_guarded", None) is guarded:
            module.run_guarded = serial  # type: ignore[attr-defined]


def tree(root: Path) -> Tree:
    """Returns all files and links below a folder with what must be equal of them, and the empty folders."""
    return {
        path.relative_to(root).as_posix(): content(path)
        for path in sorted(root.rglob("*"))
        if not path.is_dir() or path.is_symlink() or not any(path.iterdir())
    }


def content(path: Path) -> object:
    """Returns what must be equal of a file: no times, no commit, no journals of `xkd.made`, which tell the kills.

    In an index of files some hashes are those of files with times, and so is its seal.
    """
    if path.is_symlink():
        return os.readlink(path)
    if path.is_dir() or path.name.startswith(".xkd-"):
        return None
    if path.name.endswith("times.json") or path.name == "versions.json":
        return sorted(json.loads(path.read_text()))
    if path.name in ("steps.csv", "history.csv"):
        return pd.read_csv(path).drop(columns=list(STEP_TIMES), errors="ignore").to_csv()
    if path.name == "files.json":
        index = read_json(path)
        return {**index, "files": sorted(index["files"])}
    return path.read_bytes()


def differences(found: Tree, wanted: Tree) -> Iterator[str]:
    """Yields a line for each file that is missing, another, or left behind."""
    for name in sorted(found.keys() | wanted.keys()):
        if name not in wanted:
            yield f"left behind: {name}"
        elif name not in found:
            yield f"missing: {name}"
        elif found[name] != wanted[name]:
            yield f"another content: {name}"


def moments(operations: Sequence[str], count: int | None = None, seed: int = 0) -> list[Moment]:
    """Returns every moment of a stage, or a sample that is spread over its operations.

    Right after an operation everything is as right before the next one, except where a file was opened.
    """
    every = [
        Moment(number, after)
        for number, operation in enumerate(operations)
        for after in ((False, True) if operation.startswith("open ") else (False,))
    ]
    if count is None or count >= len(every):
        return every
    draws, bounds = random.Random(seed), [len(every) * part // count for part in range(count + 1)]
    return [every[draws.randrange(low, high)] for low, high in pairwise(bounds)]
