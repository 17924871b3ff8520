"""Computes the state of the user's own files that a data set reads: engines look at it before every run."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from xkd.data import listing
from xkd.data.sources.tree import is_media, walk
from xkd.errors import UserError
from xkd.settings import Params


def state_of(params: Params, name: str, above: tuple[str, ...] = ()) -> str:
    """Returns a hash over path, size and time of these files; empty for a data set that is fetched or generated.

    It changes when a file appears, vanishes or changes: in a folder of clips, in a local copy, or among those that a
    CSV lists. The raw folder of another data set as source stands for the files of that one.
    """
    entry = params.datasets[name]
    if not entry.source or "://" in entry.source:
        return ""
    source = Path(entry.source)
    for other in params.datasets:
        if other not in (name, *above) and source.is_relative_to(f"data/{other}/raw"):
            return state_of(params, other, (*above, name))
    digest = hashlib.sha256()
    for path in _files(source, entry.kind):
        digest.update(f"{os.path.relpath(path, source)} {_stamp(path)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _files(source: Path, kind: str) -> list[Path]:
    if kind == "manifest":
        try:
            return listing.paths(source)
        except UserError:  # `download` says what is wrong with it
            return []
    if source.is_file():
        return [source]
    return [path for path in walk(source) if kind != "folder" or is_media(path)]


def _stamp(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"
