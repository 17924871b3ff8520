"""Fetches the archives of a data set, or finds them in a local copy, and unpacks them into one folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

from xkd.data.catalogue import Archive, Facts
from xkd.data.sources.fetch import Remote, fetch_all
from xkd.data.sources.members import ARCHIVE_SUFFIXES, archive_files, is_archive
from xkd.data.sources.tree import Tree, is_leftover
from xkd.data.sources.unpack import Budget, members_of, unpack
from xkd.files import first_free, read_json, write_json

UNPACKED = ".unpacked.json"  # names the archives that the folders beside it were unpacked from
UNPACKED_TOO = 2.1  # disk space that a data set needs: archives of media files, and the same again unpacked


class Packed(NamedTuple):
    """An archive of the catalogue, its file, and the name under which it is unpacked."""

    archive: Archive
    path: Path
    name: str


def fetched(mirror: str | None, known: Facts, folder: Path) -> list[Packed]:
    """Fetches the archives of a data set into `folder`: those of the catalogue, and those that its lists name.

    Args:
        mirror: an address below which the files lie under our names, instead of the official places.

    Raises:
        UserError: as `fetch_all`.
    """
    archives = [(archive, "") for archive in known.archives]
    listed_in = [(listed, Archive(url=listed.url).file) for listed in known.lists]
    remotes = [Remote(address_of(mirror, listed.url, name), f"lists/{name}") for listed, name in listed_in]
    for listed, path in zip(known.lists, fetch_all(remotes, folder, known.connections), strict=True):
        urls = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        archives += [(Archive(url=url), listed.folder) for url in urls]
    names = [f"{under}/{archive.file}" if under else archive.file for archive, under in archives]
    remotes = [
        Remote(address_of(mirror, archive.url, name), name, archive.checksum)
        for (archive, _), name in zip(archives, names, strict=True)
    ]
    paths = fetch_all(remotes, folder, known.connections, UNPACKED_TOO)
    return [Packed(archive, path, name) for (archive, _), path, name in zip(archives, paths, names, strict=True)]


def packed_here(tree: Tree, known: Facts, files: Path) -> list[Packed]:
    """Returns the archives of a data set among the files of a local copy whose content does not lie there unpacked.

    Args:
        files: the folder for which `place` notes what it unpacked.
    """
    official = {archive.file.casefold(): archive for archive in known.archives}
    folders = {listed.folder for listed in known.lists}
    found = []
    for path in tree.files:
        archive = official.get(path.name.casefold())
        if archive is None and path.parent.name.casefold() in folders and ".t" in path.name:
            archive = Archive(url=path.name)
        if archive is None and known.also and fnmatch(path.name.casefold(), known.also):
            archive = Archive(url=path.name)
        if archive and is_archive(path):
            found.append(Packed(archive, path, str(tree.relative(path))))
    return [packed for packed in found if not _is_unpacked(packed, tree, files)]


def place(archives: Iterable[Packed], files: Path) -> list[Path]:
    """Unpacks each archive into a folder of its name and returns these folders; CSV files are linked beside them.

    Raises:
        UserError: as `unpack`.
    """
    budget, targets = Budget(), []
    for archive, path, name in archives:
        if is_archive(path):
            suffix = next(suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix))
            target, noted, stamp = files / name[: -len(suffix)], _noted(files), _stamp(path)
            if target.exists() and noted.get(name, stamp) != stamp:
                _set_aside(target, path)
            unpack(path, target, archive.nested, budget)
            write_json(files / UNPACKED, {**noted, name: stamp})
            targets.append(target)
        elif path.suffix == ".csv" and not (files / name).exists():
            files.mkdir(parents=True, exist_ok=True)
            if (files / name).is_symlink():  # made before the source was moved
                (files / name).unlink()
            (files / name).symlink_to(path.resolve())
    return targets


def place_archive(path: Path, files: Path) -> Path:
    """Unpacks one archive of the user's into a folder of its name, and returns that."""
    return place([Packed(Archive(url=path.name), path, path.name)], files)[0]


def _is_unpacked(found: Packed, tree: Tree, files: Path) -> bool:
    """Says whether all files of an archive also lie unpacked in the local copy."""
    noted = _noted(files)
    inside = members_of(found.path)
    if noted.get(found.name) == _stamp(found.path):  # looked through before, which may take long
        inside = islice(inside, 1)
    folders = {path.parent.name for path in tree.files} if found.archive.nested else set()
    for member in inside:
        hidden = any(is_leftover(part) for part in member.parts)
        if not (hidden or tree.named(member.name) or (is_archive(member) and member.stem in folders)):
            return False
    write_json(files / UNPACKED, {**noted, found.name: _stamp(found.path)})
    return True


def _set_aside(target: Path, archive: Path) -> None:
    """Hides what an earlier version of an archive was unpacked to, so that it is kept and not read."""
    kept = target.rename(first_free(target.with_name(f".{target.name}.{number}") for number in count(1)))
    print(f"xkd: {archive} has changed; what was in it before is kept as {kept}, delete it at will", file=sys.stderr)


def _noted(files: Path) -> dict[str, Any]:
    try:
        return read_json(files / UNPACKED)
    except (OSError, ValueError):
        return {}


def _stamp(archive: Path) -> list[list[int]]:
    """Returns size and time of each part of an archive."""
    return [[status.st_size, status.st_mtime_ns] for status in map(os.stat, archive_files(archive))]


def address_of(mirror: str | None, url: str, name: str) -> str:
    """Returns the address of a file; a mirror has it under our name."""
    return f"{mirror.rstrip('/')}/{name}" if mirror else url
