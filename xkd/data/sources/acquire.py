"""Lists the clips of a data set: finds or fetches its files and applies its layout to them."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from pathlib import Path

import pandas as pd

from xkd import registry
from xkd.data import catalogue
from xkd.data.catalogue import Facts
from xkd.data.listing import LABEL_SEPARATOR, completed
from xkd.data.sources import layouts, youtube  # noqa: F401 (layouts: registers ours)
from xkd.data.sources.members import is_archive
from xkd.data.sources.placing import fetched, packed_here, place, place_archive
from xkd.data.sources.tree import Tree, is_leftover
from xkd.errors import UserError
from xkd.files import read_json
from xkd.settings import Dataset

SEGMENTS = "segments"  # folder of clips that yt-dlp fetched
SOUGHT = (
    "looked for by its name, with any suffix of a media file, in all folders there; complete the copy or correct the "
    "source (a part of a data set can be listed with kind: manifest)"
)
LISTED = "correct the paths: they are absolute, or relative to the list"


def clips_of(entry: Dataset, name: str, out: Path) -> pd.DataFrame:
    """Returns the list of all clips that the layout of a data set names, found or not; paths are relative to `out`.

    Args:
        entry: its settings. `source` is a local copy (archives, what was in them, or both), a mirror's address, or None
            for the official place; for lists of segments, the folder of clips, or None to have them fetched later. Of a
            data set that is not in the catalogue it is a folder, an archive of one, or a list of clips.
        name: its name in the settings.
        out: gets archives/ and files/.

    Raises:
        UserError: not reachable, damaged, incomplete, no space, or a layout that returns no ids or paths.
    """
    out, known = Path(os.path.realpath(out)), catalogue.known_datasets().get(entry.kind)
    title, may_lack = (known.title, known.own_clips) if known else (name, False)
    tree = _official(known, entry.source, out) if known else _own(entry.source, name, out / "files")
    try:
        named: pd.DataFrame = registry.layouts[entry.kind](tree)
    except (KeyError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{tree.shown()}: the lists of {title} are damaged or have another format ({reason})"
        ) from error
    if absent := {"id", "path"} - set(named.columns):
        raise UserError(f"datasets.{name}: the layout '{entry.kind}' returns no column '{min(absent)}'")
    table = completed(named.fillna("").astype(str))
    if entry.source or not may_lack:
        there = set(map(str, tree.files))
        found = [path in there or os.path.isfile(path) for path in table["path"]]
        check_found(table, found, f"{title} in {tree.shown()}", SOUGHT if tree.files else LISTED, may_lack)
    return table.assign(path=[os.path.relpath(path, out) for path in table["path"]])


def check_found(table: pd.DataFrame, found: list[bool], which: str, advice: str, may_lack: bool) -> None:
    """Reports how many of the listed clips have a file.

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
    """Returns the folders that hold the files of a local copy; none if there is no such folder.

    The raw folder of another data set, or `files` in it, stands for the files of that data set.
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
    """Keeps at most `limit` clips per label, split and fold: those whose ids have the smallest hashes, in their order.

    Clips of several labels are taken for the rarest label first, and count for all of them, so that a frequent one gets
    more than `limit` only with rarer ones.
    """
    if limit is None:
        return table
    folds = table["fold"] if "fold" in table else [""] * len(table)
    rows = list(zip(table["id"], table["label"], table["split"], folds, strict=True))
    keys = [[(label, *group) for label in labels.split(LABEL_SEPARATOR)] for _, labels, *group in rows]
    clips: dict[tuple[str, ...], list[int]] = {}
    for i in sorted(range(len(rows)), key=lambda i: hashlib.sha256(rows[i][0].encode()).digest()):
        for key in keys[i]:
            clips.setdefault(key, []).append(i)
    taken: Counter[tuple[str, ...]] = Counter()
    chosen: set[int] = set()
    for key in sorted(clips, key=lambda key: (len(clips[key]), key)):
        more = [i for i in clips[key] if i not in chosen][: max(limit - taken[key], 0)]
        chosen.update(more)
        taken.update(one for i in more for one in keys[i])
    return table.iloc[sorted(chosen)].reset_index(drop=True)


def _official(known: Facts, source: str | None, out: Path) -> Tree:
    """Returns the files of a data set of the catalogue: a local copy, or fetched."""
    mirror = source if source and "://" in source and not known.own_clips else None
    roots = roots_of(Path(source)) if source and not mirror else []
    if source and not mirror and not roots:
        raise UserError(f"{source}: no such folder (datasets.<name>.source)")
    if known.own_clips:
        return _with_lists(roots, known, out)
    if roots:
        tree = Tree(*roots)
        packed = packed_here(tree, known, out / "files") if roots == [Path(os.path.realpath(str(source)))] else []
        return Tree(*roots, *place(packed, out / "files")) if packed else tree
    place(fetched(mirror, known, out / "archives"), out / "files")
    return Tree(out / "files")


def _with_lists(roots: list[Path], known: Facts, out: Path) -> Tree:
    """Returns the clips of a data set that is lists, and its lists: those beside the clips, others fetched."""
    if not roots:
        youtube.need(known.title)
    clips = Tree(*(roots or [out / SEGMENTS]))
    wanted = tuple(archive for archive in known.archives if not clips.named(archive.file))
    if wanted:
        place(fetched(None, known.model_copy(update={"archives": wanted}), out / "archives"), out / "files")
    return Tree(*clips.roots, out / "files") if wanted else clips


def _own(source: str | None, name: str, files: Path) -> Tree:
    """Returns the files of a data set that the catalogue does not know; an archive is unpacked into `files`."""
    if not source:
        raise UserError(
            f"datasets.{name}.source: give the folder of the clips or an archive of it; "
            "of kind manifest, the CSV that lists the clips in its column 'path'"
        )
    path = Path(source)
    if not path.exists():
        raise UserError(f"{source}: no such file or folder (datasets.{name}.source)")
    if path.is_file() and is_archive(path):
        return Tree(_without_wrapping(place_archive(path, files)))
    return Tree(*(roots_of(path) or [Path(os.path.realpath(path.parent), path.name)]))


def _without_wrapping(folder: Path) -> Path:
    """Returns the only folder in a folder, where there is one: most archives of a folder hold the folder itself."""
    inside = [path for path in folder.iterdir() if not is_leftover(path.name)]
    return _without_wrapping(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder
