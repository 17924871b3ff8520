"""Kills a stage at any of its operations on files, starts it again, and compares what is there with an undisturbed run.

A stage runs in a fork. There an audit hook counts what Python does to files in the project's folder: opening for
writing, renaming, removing, linking, making and removing folders. At the chosen operation the fork kills itself, either
right before it, when everything up to there was written, or right after it, when a file that it opened is still empty.
Or the disk is full from there on, or another process does its work while this one waits.

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
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from crash_watch import Act, Moment, Watch, die, no_space
from forks import code_of, fork

from xkd import cli
from xkd.data import workers
from xkd.files import read_json
from xkd.training.recorder import STEP_TIMES

Tree = dict[str, object]


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

    def at(self, name: str, other: str) -> None:
        """Lets a stage start from where another one does."""
        self.starts[name] = self.starts[other]

    def killed(self, name: str, command: Sequence[str], moments: Sequence[Moment]) -> list[str]:
        """Starts a stage again from its start, kills it at each moment, runs it to its end, and returns what is wrong.

        Each moment counts the operations of its own process. A process that takes fewer ends undisturbed.
        """
        self._again(name)
        for moment in moments:
            code = self._run(name, command, moment)
            if code not in (-signal.SIGKILL, 0):
                return [f"ended with {code} before it was killed {moment}:\n{self.log(name)[-2000:]}"]
        if code := self._run(name, command):
            return [f"the next start ended with {code}:\n{self.log(name)[-2000:]}"]
        return list(differences(tree(self.root), self.ends[name]))

    def full(self, name: str, command: Sequence[str], moment: Moment, act: Act = no_space) -> list[str]:
        """Lets the disk be full from a moment on, starts the stage again, and returns what is wrong."""
        self._again(name)
        code = self._run(name, command, moment, act)
        lines = [line for line in self.log(name).splitlines() if line.startswith("xkd: error")]
        if code not in (0, 2) or len(lines) != (code == 2) or any("defect" in line for line in lines):
            return [f"a full disk ended with {code}:\n{self.log(name)[-2000:]}"]
        if code := self._run(name, command):
            return [f"the next start ended with {code}:\n{self.log(name)[-2000:]}"]
        return list(differences(tree(self.root), self.ends[name]))

    def joined(self, name: str, command: Sequence[str], moment: Moment) -> list[str]:
        """Lets another process do the same while the first one waits at a moment, and returns what is wrong."""
        self._again(name)
        code = self._run(name, command, moment, lambda: self._second(name, command))
        second = int((self.logs / "second.code").read_text())
        if code or second not in (0, 2):
            return [f"ended with {code}, the second with {second}:\n{self.log(name)[-2000:]}"]
        return list(differences(tree(self.root), self.ends[name]))

    def read(self, name: str, command: Sequence[str], moment: Moment, reader: Sequence[str]) -> int:
        """Kills a stage at a moment, and returns with which exit code a command ends that reads what is there."""
        self._again(name)
        self._run(name, command, moment)
        return self._run("reader", reader)

    def _second(self, name: str, command: Sequence[str]) -> None:
        log = self.logs / f"{name}.second.txt"
        log.unlink(missing_ok=True)
        code = code_of(fork(lambda: self._start(command), log))
        (self.logs / "second.code").write_text(str(code))

    def _again(self, name: str) -> None:
        shutil.rmtree(self.root)
        shutil.copytree(self.starts[name], self.root, symlinks=True)

    def log(self, name: str) -> str:
        """Returns what the last start of a stage said."""
        return (self.logs / f"{name}.txt").read_text()

    def _found(self, name: str) -> Path:
        return self.logs / f"{name}.operations.json"

    def _start(self, command: Sequence[str]) -> None:
        os.chdir(self.root)
        sys.argv = ["xkd", *command]
        cli.main()

    def _run(self, name: str, command: Sequence[str], moment: Moment | None = None, act: Act | None = None) -> int:
        def start() -> None:
            _without_workers()
            watch = Watch(self.root, moment, act or die)
            sys.addaudithook(watch)
            try:
                self._start(command)
            finally:
                watch.off = True
                if not moment:
                    self._found(name).write_text(json.dumps(watch.seen))

        log = self.logs / f"{name}.txt"
        log.unlink(missing_ok=True)
        return code_of(fork(start, log))


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
