"""Finds files below folders as people keep them: follows links, and skips what operating systems leave behind."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

MEDIA = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts", ".mts", ".3gp", ".ogv"),
    *(".wav", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".aac", ".aif", ".aiff", ".wma"),
)
LEFTOVERS = {"__macosx", "thumbs.db", "desktop.ini", "lost+found"}


class Tree:
    """Finds the files below some folders by name, wherever they lie.

    Attributes:
        roots: the folders.
        files: absolute paths; those of the first folder first, in each folder by path.
    """

    def __init__(self, *roots: Path) -> None:
        self.roots = roots
        self.files = [path for root in roots for path in walk(root)]
        self._named: dict[str, list[Path]] = defaultdict(list)
        self._media: dict[str, list[Path]] = defaultdict(list)
        for path in self.files:
            self._named[path.name.casefold()].append(path)
            if is_media(path):
                self._media[path.stem.casefold()].append(path)

    def named(self, name: str) -> list[Path]:
        """Returns the files of that name, in upper or lower case."""
        return self._named.get(name.casefold(), [])

    def media(self) -> list[Path]:
        """Returns all media files."""
        return [path for paths in self._media.values() for path in paths]

    def clip(self, stem: str, folder: str = "") -> Path | None:
        """Returns the media file of that name with any suffix; of several, the one in `folder`, else the first."""
        found = self._media.get(stem.casefold(), [])
        inside = (path for path in found if path.parent.name.casefold() == folder.casefold())
        return next(inside, found[0] if found else None)

    def relative(self, path: Path) -> Path:
        """Returns the path of a file relative to the first of the folders that holds it."""
        return path.relative_to(next(root for root in self.roots if path.is_relative_to(root)))

    def shown(self) -> str:
        """Names the folders, for messages."""
        return " and ".join(map(str, self.roots))


def is_media(path: Path) -> bool:
    """Says whether the name is that of a media file."""
    return path.suffix.lower() in MEDIA


def is_leftover(name: str) -> bool:
    """Says whether a file or folder of that name is hidden, or one that macOS or Windows adds."""
    return name.startswith(".") or name.casefold() in LEFTOVERS


def walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Yields all files below a folder by path; follows links, but not back to a folder that the path came through."""
    if not folder.is_dir():
        return
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = folder / entry.name
        if is_leftover(entry.name):
            continue
        if path.is_dir() if entry.is_symlink() else entry.is_dir():
            yield from walk(path, above | {here})
        elif path.is_file() if entry.is_symlink() else entry.is_file():
            yield path
