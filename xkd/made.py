"""Keeps a list of the files that xkd wrote into a folder, so that it never removes or replaces any other file.

The list is a journal in the folder, `.xkd-<verb>.jsonl`: one JSON object per line, only ever appended to, so that it is
correct after a kill at any moment. It names a temporary file before that file is created, and the SHA-256 of a file
before the file gets its final name. A file is xkd's if the journal lists it with its present content.

    with made.opened(out, "prepare") as files:  # one process at a time
        with files.writing(out / "summary.json") as temporary:
            write_json(temporary, summary)
        files.remove(out / "older.json")  # removes it only if xkd wrote it
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path, PurePosixPath

from xkd.errors import UserError
from xkd.files import PART, first_free, locked, sha256


@contextmanager
def opened(folder: Path, verb: str) -> Iterator[Made]:
    """Yields the files that `verb` wrote into `folder`, for this process alone.

    Removes partial files that killed processes have left.

    Raises:
        UserError: another process is using the folder, or the journal is a link.
    """
    _make(folder)
    if _journal(folder, verb).is_symlink():
        raise UserError(f"{_journal(folder, verb)}: is a link to another file; move it away")
    with locked(_journal(folder, verb), f"{folder}: another `xkd {verb}` is at work here; wait for it or stop it"):
        parts, listed = _read(_journal(folder, verb))
        _remove_parts(folder, parts)
        try:
            yield Made(folder, verb, listed)
        finally:  # worker processes that were ended may have left files
            _remove_parts(folder, _read(_journal(folder, verb))[0])


class Made:
    """The files of one verb in a folder. It can be sent to other processes, which append to the same journal.

    Attributes:
        folder: the folder that contains all files, at any depth.
        listed: file name relative to the folder -> SHA-256 of each content that xkd wrote.
    """

    def __init__(self, folder: Path, verb: str, listed: dict[str, set[str]] | None = None):
        self.folder, self.verb, self.listed = folder, verb, listed or {}

    def about(self, names: Iterable[str]) -> Made:
        """Returns the same journal with only these of the listed files, for a process that writes no others."""
        return Made(self.folder, self.verb, {name: self.listed[name] for name in names if name in self.listed})

    def has(self, path: Path) -> bool:
        """Returns True if the file exists and is xkd's."""
        known = self.listed.get(self._name(path))
        if not known or path.is_symlink() or not path.is_file():
            return False
        return sha256(path).startswith(tuple(known))

    @contextmanager
    def writing(self, path: Path) -> Iterator[Path]:
        """Yields a temporary name beside `path`; moves it there at the end, removes it on an error.

        Raises:
            UserError: a file that is not xkd's has the name.
        """
        temporary = self.part(path)
        try:
            yield temporary
            self.publish(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def writing_folder(self, path: Path) -> Iterator[Path]:
        """Yields a temporary folder; moves its files into the folder `path` at the end, each atomically.

        Raises:
            UserError: one of the names belongs to a file that is not xkd's.
        """
        temporary = self.part(self.folder / "new")
        temporary.mkdir()
        try:
            yield temporary
            new = {file: path / file.relative_to(temporary) for file in sorted(temporary.rglob("*")) if file.is_file()}
            self.check_free(*new.values())
            for file, target in new.items():
                self.publish(file, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def part(self, path: Path) -> Path:
        """Returns a temporary name beside `path`, for a file or a folder; the next process removes any remains."""
        _make(path.parent)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")
        self._append("part", temporary)
        return temporary

    def publish(self, temporary: Path, path: Path) -> None:
        """Gives a finished file its final name.

        Raises:
            UserError: a file that is not xkd's has that name.
        """
        digest = sha256(temporary)
        self.make_room(path, digest)
        self.adopt(path, digest)
        _make(path.parent)
        os.replace(temporary, path)

    def adopt(self, path: Path, digest: str | None = None) -> None:
        """Lists a file as xkd's: one that is about to get its name, or that an earlier version of xkd made."""
        if _inside(self._name(path)):
            digest = digest or sha256(path)
            self._append("path", path, sha256=digest)
            self.listed.setdefault(self._name(path), set()).add(digest)

    def make_room(self, path: Path, digest: str | None = None) -> None:
        """Makes sure that `path` can be replaced: renames a file that was changed since xkd wrote it.

        Args:
            path: the name to be written.
            digest: SHA-256 of the new content; an existing file with the same content may be replaced.

        Raises:
            UserError: a file that is not xkd's has the name.
        """
        if not os.path.lexists(path) or self.has(path):
            return
        if digest and path.is_file() and not path.is_symlink() and sha256(path) == digest:
            return
        self.check_free(path)
        aside = first_free(path.with_name(f"{path.name}.set-aside-{number}") for number in count(1))
        path.rename(aside)
        print(f"xkd: {path}: was changed since xkd wrote it; kept as {aside.name}", file=sys.stderr, flush=True)

    def check_free(self, *paths: Path) -> None:
        """Checks that names may be written.

        Raises:
            UserError: a file that xkd never wrote has one of them.
        """
        for path in paths:
            if os.path.lexists(path) and self._name(path) not in self.listed:
                raise UserError(
                    f"{path}: is not known to be a file of `xkd {self.verb}`, which would replace it; "
                    "move it away, or give another --out"
                )

    def remove(self, path: Path) -> bool:
        """Removes a file if it is xkd's; returns True if it was."""
        if not self.has(path):
            return False
        path.unlink()
        return True

    def clear(self, path: Path) -> None:
        """Removes a file if it is xkd's, and renames it if it was changed since.

        Raises:
            UserError: xkd never wrote the file.
        """
        if not self.remove(path):
            self.make_room(path)

    def sweep(self, below: Path, keep: set[Path]) -> list[Path]:
        """Removes xkd's files in the folder `below` except those to keep, and the folders that become empty.

        Returns:
            the remaining files that are not to be kept: they are not xkd's.
        """
        inside = [path for path in map(self.folder.joinpath, self.listed) if path.is_relative_to(below)]
        emptied = {path.parent for path in inside if path not in keep and self.remove(path)}
        for folder in emptied:
            with suppress(OSError):  # the first that is not empty ends it
                while folder != below:
                    folder.rmdir()
                    folder = folder.parent
        return [path for path in sorted(below.rglob("*")) if path not in keep and not path.is_dir()]

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self.folder)

    def _append(self, kind: str, path: Path, **facts: str) -> None:
        """Adds a line in one write; the line break before it ends one that a kill has cut off."""
        line = json.dumps({kind: self._name(path), **facts})
        with open(_journal(self.folder, self.verb), "ab") as file:
            file.write(f"\n{line}\n".encode())


def contents(journal: Path) -> dict[str, set[str]]:
    """Returns the files that a journal lists, with the SHA-256 of each content that xkd gave them."""
    return _read(journal)[1]


def listed_by(verb: str, paths: Iterable[Path]) -> set[Path]:
    """Returns those of the files that a journal of `verb` lists, in any folder above them."""
    journals: dict[Path, dict[str, set[str]]] = {}
    found = set()
    for path in paths:
        for full in {path.absolute(), Path(os.path.realpath(path))}:
            for folder in full.parents:
                if folder not in journals:
                    journals[folder] = _read(_journal(folder, verb))[1]
                if full.relative_to(folder).as_posix() in journals[folder]:
                    found.add(path)
    return found


def _journal(folder: Path, verb: str) -> Path:
    return folder / f".xkd-{verb}.jsonl"


def _read(journal: Path) -> tuple[list[str], dict[str, set[str]]]:
    """Returns the temporary names and the known contents of each file; leaves out lines that a kill has cut off."""
    parts: list[str] = []
    listed: dict[str, set[str]] = defaultdict(set)
    with suppress(FileNotFoundError):
        for line in journal.read_bytes().split(b"\n"):
            try:
                entry = json.loads(line)
                name = entry.get("part") or entry["path"]
                if not _inside(name):
                    continue
                if "part" in entry:
                    parts.append(name)
                else:
                    listed[name].add(entry["sha256"])
            except (ValueError, KeyError, AttributeError, TypeError):
                continue
    return parts, dict(listed)


def _inside(name: str) -> bool:
    """Returns True if a relative name stays inside the folder."""
    return not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        raise UserError(f"{file}: is a file, but xkd needs a folder of this name; move the file away") from None


def _remove_parts(folder: Path, parts: list[str]) -> None:
    """Removes temporary files and folders."""
    for left in map(folder.joinpath, parts):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        elif os.path.lexists(left):
            left.unlink()
