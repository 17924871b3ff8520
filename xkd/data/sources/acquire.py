"""From a catalogue entry to the unpacked files of a data set and the list of its clips."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from xkd.data.catalogue import Archive, Facts
from xkd.data.listing import LABEL_SEPARATOR
from xkd.data.sources import layouts, youtube
from xkd.data.sources.fetch import Remote, fetch_all
from xkd.data.sources.tree import Tree, is_leftover
from xkd.data.sources.unpack import ARCHIVE_SUFFIXES, Budget, is_archive, members_of, parts, unpack
from xkd.errors import UserError
from xkd.files import first_free, read_json, write_json

SEGMENTS = "segments"  # folder of clips that yt-dlp fetched
UNPACKED = ".unpacked.json"  # of which archives the folders beside it were unpacked
SOUGHT = (
    "looked for by its name, with any suffix of a media file, in all folders there; complete the copy or correct the "
    "source (a part of a data set can be listed with kind: manifest)"
)
UNPACKED_TOO = 2.1  # disk space that a set needs: archives of media files, and the same again unpacked


class Packed(NamedTuple):
    """An archive, the file, and the name under which it is unpacked."""

    archive: Archive
    path: Path
    name: str


def clips_of(kind: str, known: Facts, source: str | None, out: Path) -> pd.DataFrame:
    """Rows of every clip that the official lists name; `path` is relative to `out`.

    Args:
        kind: the layout.
        known: addresses and facts.
        source: a local copy (archives, what was in them, or both), a mirror's address, or None for the official place;
            for lists of segments, the folder of clips, or None to have them fetched later.
        out: gets archives/ and files/.

    Raises:
        UserError: not reachable, damaged, incomplete, or no space.
    """
    out = Path(os.path.realpath(out))
    mirror = source if source and "://" in source and not known.own_clips else None
    roots = roots_of(Path(source)) if source and not mirror else []
    if source and not mirror and not roots:
        raise UserError(f"{source}: no such folder (datasets.<name>.source)")
    if known.own_clips:
        tree = _with_lists(roots, known, out)
    elif roots:
        tree = _local(roots, known, out / "files", may_unpack=roots == [Path(os.path.realpath(str(source)))])
    else:
        _placed(_fetched(mirror, known, out / "archives"), out / "files")
        tree = Tree(out / "files")
    try:
        table: pd.DataFrame = getattr(layouts, kind)(tree)
    except (KeyError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{tree.shown()}: the lists of {known.title} are damaged or others ({reason})") from None
    if source or not known.own_clips:
        there = set(map(str, tree.files))
        found = [path in there for path in table["path"]]
        check_found(table, found, f"{known.title} in {tree.shown()}", SOUGHT, known.own_clips)
    return table.assign(path=[os.path.relpath(path, out) for path in table["path"]])


def check_found(table: pd.DataFrame, found: list[bool], which: str, advice: str, may_lack: bool = False) -> None:
    """Says how many of the listed clips have a file.

    Args:
        which: the data set and where it was looked for.
        advice: what to do about it.
        may_lack: most may be gone, as of AudioSet, whose clips people fetch from YouTube.

    Raises:
        UserError: less than half of a split have one.
    """
    counts = table.assign(found=found).groupby("split")["found"].agg(["sum", "size"])
    if all(found):
        return
    shown = ", ".join(f"{split} {row['sum']:,} of {row['size']:,}" for split, row in counts.iterrows())
    first = Path(table["path"][found.index(False)]).name
    said = f"{which}: clips with a file: {shown}; the first without one is {first}"
    needed = counts.drop(index="unused", errors="ignore")
    if not any(found) or (not may_lack and (2 * needed["sum"] < needed["size"]).any()):
        raise UserError(f"{said}; {advice}")
    print(f"xkd: {said}; `prepare` records them as missing", file=sys.stderr)


def roots_of(folder: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """The folders in which the files of a local copy lie; none if there is no such folder.

    The raw folder of another data set, or `files` in it, stands for what that was made from.
    """
    raw = folder.parent if folder.name == "files" else folder
    try:
        source = read_json(raw / "source.json")["source"]
        if source is not None and not isinstance(source, str):
            raise ValueError
    except (OSError, ValueError, KeyError):
        return [Path(os.path.realpath(folder))] if folder.is_dir() else []
    roots = [Path(os.path.realpath(raw / "files"))] if (raw / "files").is_dir() else []
    if source and "://" not in source and raw not in above:
        roots += roots_of(Path(source), (*above, raw))
    return roots


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


def _fetched(mirror: str | None, known: Facts, folder: Path) -> list[Packed]:
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
    return [Packed(archive, path, name) for (archive, _), path, name in zip(archives, paths, names, strict=True)]


def _with_lists(roots: list[Path], known: Facts, out: Path) -> Tree:
    """The clips of a set that is lists, and these: those beside the clips, others fetched."""
    if not roots:
        youtube.need(known.title)
    clips = Tree(*(roots or [out / SEGMENTS]))
    wanted = tuple(archive for archive in known.archives if not clips.named(archive.file))
    if wanted:
        _placed(_fetched(None, known.model_copy(update={"archives": wanted}), out / "archives"), out / "files")
    return Tree(*clips.roots, out / "files") if wanted else clips


def _local(roots: list[Path], known: Facts, files: Path, may_unpack: bool) -> Tree:
    """The files of a local copy; what is there only in archives is unpacked into `files`."""
    tree = Tree(*roots)
    packed = [found for found in _archives(tree, known) if not _is_unpacked(found, tree, files)] if may_unpack else []
    return Tree(*roots, *_placed(packed, files)) if packed else tree


def _archives(tree: Tree, known: Facts) -> Iterator[Packed]:
    """Archives of a set among the files that people have, wherever they lie."""
    official = {archive.file.casefold(): archive for archive in known.archives}
    folders = {listed.folder for listed in known.lists}
    for path in tree.files:
        archive = official.get(path.name.casefold())
        if archive is None and path.parent.name.casefold() in folders and ".t" in path.name:
            archive = Archive(url=path.name)
        if archive is None and known.also and fnmatch(path.name.casefold(), known.also):
            archive = Archive(url=path.name)
        if archive and is_archive(path):
            root = next(root for root in tree.roots if path.is_relative_to(root))
            yield Packed(archive, path, str(path.relative_to(root)))


def _is_unpacked(found: Packed, tree: Tree, files: Path) -> bool:
    """Whether all files of an archive also lie among those that people have, unpacked."""
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


def _placed(archives: Iterable[Packed], files: Path) -> list[Path]:
    """Unpacks each archive into a folder of its name and gives these; other files are linked beside them."""
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
    """Size and time of each part of an archive."""
    return [[status.st_size, status.st_mtime_ns] for status in map(os.stat, parts(archive))]


def _at(mirror: str | None, url: str, name: str) -> str:
    """The address of a file; a mirror has it under our name."""
    return f"{mirror.rstrip('/')}/{name}" if mirror else url


def _last(url: str) -> str:
    return Archive(url=url).file
