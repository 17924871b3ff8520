"""The hub: finds encoders there by name, and a repository as a target of `xkd push`.

Its library, huggingface_hub, is an optional extra and is imported here alone.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import textwrap
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xkd import __version__
from xkd.encoders.parcel import Content, Files, digest, size
from xkd.errors import UserError

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")  # owner/name
SCHEME = "hf://"
MESSAGE = f"Push encoders (xkd {__version__})"


def folder_of(name_or_folder: str | Path, revision: str | None, patterns: Collection[str], **options: Any) -> Path:
    """Returns a folder that is there, or the files of a repository after downloading those that are not here yet.

    Args:
        name_or_folder: a folder, or owner/name on the hub; a folder comes first.
        revision: branch, tag or commit of the repository.
        patterns: which of its files.
        options: of `snapshot_download`: token, cache_dir, force_download, local_files_only.

    Raises:
        UserError: no such folder or repository, the library is missing, no access or no network, or a revision of a
            folder.
    """
    name = str(name_or_folder)
    if Path(name).exists():
        if revision:
            raise UserError(f"{name}: a folder on this machine, which has no revision {revision}; leave that out")
        return Path(name)
    if not REPOSITORY.fullmatch(name):
        raise UserError(f"{name}: no such folder, nor is it the owner/name of a repository on the hub")
    library = _library(f"{name}: no such folder")
    with _answers(f"{name}{f' at {revision}' if revision else ''}"):
        found = library.snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(patterns),
            library_name="xkd",
            library_version=__version__,
            **options,
        )
    return Path(found)


@dataclass(frozen=True)
class Repository:
    """A repository of the hub.

    Attributes:
        name: owner/name.
        branch: main if None.
        private: of a repository that is created; None: as its owner's new ones are.
        token: None: the one that `hf auth login` or HF_TOKEN gave.
        message: of commits.
    """

    name: str
    branch: str | None = None
    private: bool | None = None
    token: str | None = None
    message: str = MESSAGE

    def __post_init__(self) -> None:
        library = _library(self.name)
        try:
            parsed = library.parse_hf_uri(str(self))
        except ValueError:
            parsed = None
        if parsed is None or parsed.type != "model" or parsed.path_in_repo:
            raise UserError(f"{self}: not a repository; write {SCHEME}owner/name or {SCHEME}owner/name@branch")

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}{f'@{self.branch}' if self.branch else ''}"

    @property
    def loads_as(self) -> str:
        """Returns what `from_pretrained` takes."""
        return self.name

    def compared(self, files: Files, names: Collection[str]) -> dict[str, bool]:
        """Returns those of the names that are there, and whether their content is that of `files`.

        Raises:
            UserError: no token, no access, or no network.
        """
        with _answers(str(self)):
            if not self._api.repo_exists(self.name):
                return {}
            found = self._api.get_paths_info(self.name, list(names), revision=self.branch)
        return {one.path: one.path in files and _is(one, files[one.path]) for one in found}

    def send(self, files: Files, gone: Collection[str]) -> str:
        """Adds and removes files in one commit, and returns its address. The repository is created if needed.

        Raises:
            UserError: as of `compared`, or the hub refuses the files or the front matter of a card.
        """
        library = _library(self.name)
        operations = [
            *(library.CommitOperationAdd(name, content) for name, content in files.items()),
            *(library.CommitOperationDelete(name) for name in gone),
        ]
        with _answers(str(self)):
            self._api.create_repo(self.name, private=self.private, exist_ok=True)
            done = self._api.create_commit(self.name, operations, commit_message=self.message, revision=self.branch)
        return str(done.commit_url)

    @property
    def _api(self) -> Any:
        library = _library(self.name)
        token = self.token or library.get_token()
        if not token:
            raise UserError(f"{self}: no token for the hub; run `hf auth login`, or set HF_TOKEN")
        return library.HfApi(token=token, library_name="xkd", library_version=__version__)


def repository(address: str, private: bool | None) -> Repository:
    """Reads hf://owner/name or hf://owner/name@branch.

    Raises:
        UserError: it is none, or the library is missing.
    """
    name, _, branch = address.removeprefix(SCHEME).partition("@")
    return Repository(name, branch or None, private)


def _library(about: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError(f"{about}; the hub needs: pip install 'xkd[hub]'") from None


@contextmanager
def _answers(about: str) -> Iterator[None]:
    """Turns what the library raises into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # its own errors, those of the network, and ValueError for a card that is refused
        code = getattr(getattr(error, "response", None), "status_code", 0)
        known = {401: "no valid token", 403: "the token does not allow this", 404: "not found on the hub, or private"}
        raise UserError(f"{about}: {known.get(code) or _one_line(error)}") from error


def _one_line(error: Exception) -> str:
    said = str(getattr(error, "server_message", None) or error)
    return textwrap.shorten(said, 200, placeholder=" ...") or type(error).__name__


def _is(there: Any, content: Content) -> bool:
    """Compares by what the hub knows of a file: SHA-256 of large ones, and Git's hash of the others."""
    if there.size != size(content):
        return False
    if there.lfs:
        return bool(there.lfs.sha256 == digest(content))
    data = content if isinstance(content, bytes) else content.read_bytes()
    return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest())
