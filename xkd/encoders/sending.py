"""Sends files to a repository of the hub, or to a folder of any file system that fsspec knows."""

from __future__ import annotations

import hashlib
import tempfile
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from xkd import runs
from xkd.encoders import folder, hub
from xkd.encoders.parcel import Content, Files, digest, size
from xkd.errors import UserError


class Target(Protocol):
    """Where files go."""

    @property
    def loads_as(self) -> str:
        """What `from_pretrained` takes; empty where it takes none."""

    def compared(self, files: Files, names: Collection[str]) -> dict[str, bool]:
        """Returns those of the names that are there, and whether their content is that of `files`."""

    def send(self, files: Files, gone: Collection[str]) -> str:
        """Writes files and removes others; returns the address of the result."""


class Folder:
    """A folder of this machine, or of a service that fsspec knows, such as s3://bucket/path."""

    loads_as = ""

    def __init__(self, address: str) -> None:
        try:
            self.files, root = url_to_fs(address)
        except (ImportError, ValueError) as error:  # a package or a protocol that is not there
            raise UserError(f"{address}: {_one_line(error)}") from None
        self.address, self.root = address, root.rstrip("/")
        self.local = Path(root) if isinstance(self.files, LocalFileSystem) else None
        if self.local:
            check_no_run(self.local)

    def __str__(self) -> str:
        return self.address

    def compared(self, files: Files, names: Collection[str]) -> dict[str, bool]:
        """Returns those of the names that are there, and whether their content is that of `files`.

        Raises:
            UserError: the service does not answer, or refuses.
        """
        with self._answers():
            return {name: self._has(name, files.get(name)) for name in names if self.files.exists(self._at(name))}

    def send(self, files: Files, gone: Collection[str]) -> str:
        """Writes files in their order and removes others; then reads what has arrived and compares it.

        Raises:
            UserError: the service does not answer, refuses, or has something else afterwards.
        """
        with self._answers():
            for name, content in files.items():
                self.files.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
                if isinstance(content, bytes):
                    self.files.pipe_file(self._at(name), content)
                else:
                    self.files.put_file(str(content), self._at(name))
            for name in gone:
                self.files.rm_file(self._at(name))
            self.files.invalidate_cache()
            odd = [name for name, content in files.items() if not self._has(name, content)]
        if odd:
            raise UserError(f"{self.address}/{odd[0]}: did not arrive as it was sent; send it again with --force")
        return self.address

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _has(self, name: str, content: Content | None) -> bool:
        if content is None or self.files.size(self._at(name)) != size(content):
            return False
        with self.files.open(self._at(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest(content)

    @contextmanager
    def _answers(self) -> Iterator[None]:
        """Turns what the file system raises into one line."""
        try:
            yield
        except Exception as error:  # each service raises errors of its own
            raise UserError(f"{self.address}: {_one_line(error)}") from error


def check_no_run(folder: Path) -> None:
    """Checks that a folder is neither that of a run nor in one.

    Raises:
        UserError: it is.
    """
    for place in (folder.resolve(), *folder.resolve().parents):
        if runs.is_run(place):
            raise UserError(f"{folder}: is in the run {place}, which keeps its files as they are; name another folder")


def target_of(address: str, private: bool | None = None) -> Target:
    """Reads where to send to: hf://owner/name is a repository of the hub, all else is a folder.

    Args:
        private: of a repository that is created.

    Raises:
        UserError: an unknown address, one of a run, or a library is missing.
    """
    return hub.repository(address, private) if address.startswith(hub.SCHEME) else Folder(address)


class Delivery(NamedTuple):
    """What was done: the address of the result, empty if all was there, and the names of files sent and removed."""

    address: str
    sent: list[str]
    removed: list[str]


def deliver(target: Target, files: Files, force: bool) -> Delivery:
    """Sends what is not there yet; removes parts of an earlier encoder that the new one lacks.

    Raises:
        UserError: files of these names are there with another content, and `force` is not given; nothing is changed.
            Errors of the target.
    """
    places = [name.removesuffix(folder.CONFIG) for name in files if name.rpartition("/")[2] == folder.CONFIG]
    names = list(files) + [
        f"{place}{name}" for place in places for name in folder.FILES if f"{place}{name}" not in files
    ]
    there = target.compared(files, names)
    other = [name for name, same in there.items() if not same]
    if other and not force:
        more = f" and {len(other) - 1} more" if other[1:] else ""
        raise UserError(f"{target}: holds another {other[0]}{more}; name another target, or replace it with --force")
    new = {name: content for name, content in files.items() if not there.get(name)}
    gone = [name for name in other if name not in files]
    return Delivery(target.send(new, gone) if new or gone else "", list(new), gone)


class Shareable(ABC):
    """Base of what is saved as a folder: sends it to the hub."""

    @abstractmethod
    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the folder that `from_pretrained` reads."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        commit_message: str = hub.MESSAGE,
    ) -> str:
        """Saves into a repository of the hub, in one commit that replaces an encoder that is there.

        Args:
            repo_id: owner/name; the repository is created if there is none.
            private: of a new repository; by default as its owner's new ones are.
            token: by default the one that `hf auth login` or HF_TOKEN gave.
            branch: by default main.

        Returns:
            the address of the commit; empty if all was there.

        Raises:
            UserError: the library is missing, the name is none, there is no token, or the hub refuses.
        """
        repository = hub.Repository(repo_id, branch, private, token, commit_message)
        with tempfile.TemporaryDirectory() as name:
            self.save_pretrained(name)
            paths = [path for path in sorted(Path(name).rglob("*")) if path.is_file()]
            files: dict[str, Content] = {path.relative_to(name).as_posix(): path for path in paths}
            return deliver(repository, files, force=True).address


def _one_line(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return textwrap.shorten(reason, 200, placeholder=" ...") or type(error).__name__
