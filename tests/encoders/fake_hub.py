"""A hub in memory, in the place of the part of huggingface_hub that would need a network.

Calls are held against the library's own signatures, and files are described by its own classes.
"""

import hashlib
import inspect
from types import SimpleNamespace

import huggingface_hub
from huggingface_hub.hf_api import RepoFile

LARGE = 10_000  # bytes from which a file is kept as the hub keeps weights
API = huggingface_hub.HfApi


class FakeHub:
    """Repositories by name: path -> content. `commits` lists each commit's repository, additions and deletions."""

    def __init__(self):
        self.repositories, self.commits, self.created, self.tokens = {}, [], {}, []

    def install(self, patch, token="secret"):
        patch.setattr(huggingface_hub, "HfApi", self._api)
        patch.setattr(huggingface_hub, "get_token", lambda: token)
        return self

    def _api(self, **options):
        inspect.signature(API).bind(**options)
        self.tokens.append(options["token"])
        return SimpleNamespace(**{name: self._as_real(name) for name in FUNCTIONS})

    def _as_real(self, name):
        def call(*arguments, **options):
            inspect.signature(getattr(API, name)).bind(None, *arguments, **options)
            return getattr(self, name)(*arguments, **options)

        return call

    def repo_exists(self, name):
        return name in self.repositories

    def create_repo(self, name, private, exist_ok):
        assert exist_ok
        self.created.setdefault(name, private)
        self.repositories.setdefault(name, {".gitattributes": b""})

    def get_paths_info(self, name, paths, revision):
        return [_described(path, self.repositories[name][path]) for path in paths if path in self.repositories[name]]

    def create_commit(self, name, operations, commit_message, revision):
        added = [one for one in operations if isinstance(one, huggingface_hub.CommitOperationAdd)]
        gone = [one.path_in_repo for one in operations if isinstance(one, huggingface_hub.CommitOperationDelete)]
        for one in added:
            with one.as_file() as file:
                self.repositories[name][one.path_in_repo] = file.read()
        for path in gone:
            del self.repositories[name][path]
        self.commits.append((name, [one.path_in_repo for one in added], gone, commit_message, revision))
        return SimpleNamespace(commit_url=f"address of commit {len(self.commits)}")


FUNCTIONS = ("repo_exists", "create_repo", "get_paths_info", "create_commit")


def _described(path, content):
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    sha = hashlib.sha256(content).hexdigest()
    lfs = {"lfs": {"size": len(content), "oid": sha, "pointerSize": 1}} if len(content) > LARGE else {}
    return RepoFile(path=path, size=len(content), oid="of a pointer" if lfs else git, **lfs)
