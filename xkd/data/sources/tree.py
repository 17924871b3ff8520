"""The files under folders, as people have them: links are followed, and what systems leave behind is not seen."""

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
    """The files under some folders, found by their names wherever they lie.

    Attributes:
        roots: the folders.
        files: those of the first folder first, in each by path.
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
        """Files of that name, in upper or lower case."""
        return self._named.get(name.casefold(), [])

    def media(self) -> list[Path]:
        """All media files."""
        return [path for paths in self._media.values() for path in paths]

    def clip(self, stem: str, folder: str = "") -> Path | None:
        """The media file of that name, whatever its suffix; of several the one in a folder of the name `folder`."""
        found = self._media.get(stem.casefold(), [])
        inside = (path for path in found if path.parent.name.casefold() == folder.casefold())
        return next(inside, found[0] if found else None)

    def shown(self) -> str:
        """The folders, for messages."""
        return " and ".join(map(str, self.roots))


def is_media(path: Path) -> bool:
    """Whether the name is that of a media file."""
    return path.suffix.lower() in MEDIA


def is_leftover(name: str) -> bool:
    """Whether a file or folder of that name is hidden, or one that macOS or Windows adds."""
    return name.startswith(".") or name.casefold() in LEFTOVERS


def walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """All files under a folder, by path; links are followed, but not back to a folder that the path came through."""
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
