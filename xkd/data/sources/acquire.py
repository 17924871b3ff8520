"""From a catalogue entry to the unpacked files of a data set and the list of its clips."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from xkd.data.catalogue import Archive, Facts
from xkd.data.listing import LABEL_SEPARATOR
from xkd.data.sources import layouts, youtube
from xkd.data.sources.fetch import Remote, fetch_all
from xkd.data.sources.unpack import unpack
from xkd.errors import UserError

PACKED = (".zip", ".rar", ".tar", ".tar.gz", ".tgz")
SEGMENTS = "segments"  # folder of clips that yt-dlp fetched
UNPACKED_TOO = 2.1  # disk space that a set needs: archives of media files, and the same again unpacked


def clips_of(kind: str, known: Facts, source: str | None, out: Path) -> pd.DataFrame:
    """Rows of every clip that the official lists name; `path` is relative to `out`.

    Args:
        kind: the layout.
        known: addresses and facts.
        source: a local copy (archives, or what was in them), a mirror's address, or None for the official place; for
            lists of segments, the folder of clips, or None to have them fetched later.
        out: gets archives/ and files/.

    Raises:
        UserError: not reachable, damaged, incomplete, or no space.
    """
    mirror = source if source and "://" in source and not known.own_clips else None
    given = Path(source) if source and not mirror else None
    if given and not given.is_dir():
        raise UserError(f"{given}: no such folder (datasets.<name>.source)")
    if known.own_clips and not given:
        youtube.need(known.title)
    local = None if known.own_clips else given
    if local and not _archives_in(local, known.archives):
        root = local
    else:
        root = out / "files"
        archives = _local(local, known) if local else _fetched(mirror, known, out / "archives")
        for archive, path, name in archives:
            _place(archive, path, root / name)
    layout = getattr(layouts, kind)
    table: pd.DataFrame = layout(root, given or out / SEGMENTS) if known.own_clips else layout(root)
    return table.assign(path=[os.path.relpath(root / path, out) for path in table["path"]])


def limited(table: pd.DataFrame, limit: int | None) -> pd.DataFrame:
    """At most `limit` clips per label, split and fold: those whose ids have the smallest hashes, in their order.

    A clip of several labels is taken while any of them still has room.
    """
    if limit is None:
        return table
    folds = table["fold"] if "fold" in table else [""] * len(table)
    rows = list(zip(table["id"], table["label"], table["split"], folds, strict=True))
    taken: Counter[tuple[str, ...]] = Counter()
    chosen = []
    for i in sorted(range(len(rows)), key=lambda i: hashlib.sha256(rows[i][0].encode()).digest()):
        _, labels, *place = rows[i]
        keys = [(label, *place) for label in labels.split(LABEL_SEPARATOR)]
        if any(taken[key] < limit for key in keys):
            chosen.append(i)
            taken.update(keys)
    return table.iloc[sorted(chosen)].reset_index(drop=True)


def _fetched(mirror: str | None, known: Facts, folder: Path) -> list[tuple[Archive, Path, str]]:
    """Archives of a set, fetched; those that lists name after the lists."""
    archives = [(archive, "") for archive in known.archives]
    if known.lists:
        remotes = [
            Remote(_at(mirror, listed.url, _last(listed.url)), f"lists/{_last(listed.url)}") for listed in known.lists
        ]
        for listed, path in zip(known.lists, fetch_all(remotes, folder, known.connections), strict=True):
            urls = [line.strip() for line in path.read_text().splitlines() if line.strip()]
            archives += [(Archive(url=url), listed.folder) for url in urls]
    names = [f"{under}/{archive.file}" if under else archive.file for archive, under in archives]
    remotes = [
        Remote(_at(mirror, archive.url, name), name, archive.checksum)
        for (archive, _), name in zip(archives, names, strict=True)
    ]
    paths = fetch_all(remotes, folder, known.connections, UNPACKED_TOO)
    return [(archive, path, name) for (archive, _), path, name in zip(archives, paths, names, strict=True)]


def _local(folder: Path, known: Facts) -> list[tuple[Archive, Path, str]]:
    """Archives of a set in the user's folder; those that lists name lie in their folders."""
    found = [(archive, folder / archive.file, archive.file) for archive in known.archives]
    for listed in known.lists:
        parts = sorted((folder / listed.folder).glob("*.tar.gz"))
        found += [(Archive(url=part.name), part, f"{listed.folder}/{part.name}") for part in parts]
    for _, path, _ in found:
        if not path.is_file():
            raise UserError(f"{path}: missing; the folder holds other archives of {known.title}, complete it")
    return found


def _archives_in(folder: Path, archives: Sequence[Archive]) -> bool:
    return any((folder / archive.file).is_file() for archive in archives if archive.file.endswith(PACKED))


def _place(archive: Archive, path: Path, target: Path) -> None:
    """Unpacks an archive into a folder of its name; other files are linked beside them."""
    suffix = next((suffix for suffix in PACKED if path.name.endswith(suffix)), None)
    if suffix:
        unpack(path, target.with_name(target.name.removesuffix(suffix)), archive.nested)
    elif path.suffix == ".csv" and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path.resolve())


def _at(mirror: str | None, url: str, name: str) -> str:
    """The address of a file; a mirror has it under our name."""
    return f"{mirror.rstrip('/')}/{name}" if mirror else url


def _last(url: str) -> str:
    return Archive(url=url).file
