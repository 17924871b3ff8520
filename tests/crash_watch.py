"""Counts the operations of a process on files, and acts at one of them: for `crash_harness`."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
LOCKS = ("/lock", ".lock")
TAKES_SPACE = ("open", "os.mkdir", "os.link", "os.symlink")
LARGEST = 8192  # bytes
Act = Callable[[], None]


@dataclass(frozen=True)
class Moment:
    """Says where a stage is killed: right before its operation of a number, from 0, or right after it."""

    number: int
    after: bool = False

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} operation {self.number}"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def little_space() -> None:
    """Lets no file grow beyond a few kilobytes, whoever writes it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def no_space() -> None:
    """Fails as an operation does on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Watch:
    """Counts the operations of this process on files below a folder, and acts at one of them."""

    def __init__(self, root: Path, moment: Moment | None, act: Act) -> None:
        self.root, self.moment, self.act = f"{root}{os.sep}", moment, act
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
        if self.moment and number >= self.moment.number and self.act is no_space and event in TAKES_SPACE:
            no_space()
        if self.moment and number == self.moment.number and self.act is not no_space:
            self.off = True
            if self.moment.after:
                perform()
            self.act()


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
