"""Stage `prepare`: raw media files -> training-ready clips and their manifest."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from xkd.data import catalogue, encode, listing, manifest
from xkd.data.packed import AUDIO, INDEX, VIDEO, Pack, PackWriter
from xkd.data.transcode import Prepared, file_name, prepare_clip
from xkd.data.workers import Failure, run_guarded, seconds_allowed
from xkd.errors import UserError
from xkd.files import read_json, write_json
from xkd.made import Made, opened
from xkd.progress import track
from xkd.settings import Clips, Limits, Params

ClipTask = tuple[str, str, Made, Clips, str, bool, Limits]
PACK_FILES = (INDEX, VIDEO, AUDIO)  # a pack needs its index: it is removed first and written last


class _Wanted(NamedTuple):
    """Settings of the data set that decide what its clips are."""

    dataset: str
    require: str
    clips: Clips
    limits: Limits


def run(params: Params, raw: Path, out: Path, processes: int | None = None) -> None:
    """Decodes every clip that the index `raw` lists; writes clips/, packed/, summary.json and manifest.csv.

    A clip's name holds hashes of its raw file and of the settings, so that clips are found again: an interrupted call
    continues, a call after some files were added or changed makes only those, and a failed call leaves earlier results
    as they were. No other files in `out` are touched.

    Args:
        processes: by default one per core; the result does not depend on it.

    Raises:
        UserError: no index, nothing in it, no usable clip, no space left, raw files among the prepared ones, other
            files in the way, or another process at work in `out`.
    """
    dataset = _dataset_of(params, raw)
    require, clips = catalogue.required(catalogue.entry(params, dataset)), catalogue.clips(params, dataset)
    if clips.size % 2:
        raise UserError(f"clips.size: {clips.size} is odd; H.264 needs an even number of pixels")
    wanted = _Wanted(dataset, require, clips, params.limits)
    table = listing.read_listing(raw)
    _check_apart(raw, table["path"], out)
    with opened(out, "prepare") as files:
        _adopt_older(files, out)
        files.check_free(out / "manifest.csv", out / "summary.json", *(out / "packed" / name for name in PACK_FILES))
        _prepare(table, raw, out, wanted, files, processes)


def _prepare(table: pd.DataFrame, raw: Path, out: Path, wanted: _Wanted, files: Made, processes: int | None) -> None:
    earlier = _earlier(files)
    folder = f"clips/{_key(wanted.clips)}"
    names = [_name(folder, *clip, earlier) for clip in zip(table["id"], table["path"], strict=True)]
    table = table.rename(columns={"path": "source"}).assign(name=names)
    pack = PackWriter(files.part(out / "packed")) if wanted.clips.pack else None
    try:
        tasks = _tasks(table, raw, wanted, files, earlier)
        facts = list(_prepared(table, tasks, pack, processes))
        rows = table.join(pd.DataFrame(facts, index=table.index))
        _check_usable(rows, raw, wanted.require)
        _publish(rows, out, wanted, files, pack)
    except OSError as error:  # raised here or in a process of the pool: never the fault of a clip
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(f"{out}: no space left on the disk; free some and run again, finished clips are kept") from None
    finally:
        if pack:
            shutil.rmtree(pack.folder, ignore_errors=True)


def _earlier(files: Made) -> dict[str, list[str]]:
    """Groups the names of prepared clips by what comes before the hash of their content."""
    earlier = defaultdict(list)
    for path in files.listed:
        earlier[path.rpartition("-")[0]].append(path)
    return earlier


def _name(folder: str, clip_id: str, source: str, earlier: Container[str]) -> str:
    """Returns where a clip goes, but for the hash of its content: into one of 256 folders, which stay small.

    Clips that an earlier version put into the folder itself stay there.
    """
    name = file_name(clip_id, source)
    if f"{folder}/{name}" in earlier:
        return f"{folder}/{name}"
    return f"{folder}/{name[-2:]}/{name}"


def _tasks(
    table: pd.DataFrame, raw: Path, wanted: _Wanted, files: Made, earlier: dict[str, list[str]]
) -> list[ClipTask]:
    """Returns the arguments of `prepare_clip` for each clip whose id did not come before."""
    once = table[~table["id"].duplicated()]
    same = (wanted.clips, wanted.require, wanted.clips.pack, wanted.limits)
    return [
        (str(raw.parent / source), str(files.folder / name), files.about(earlier.get(name, ())), *same)
        for source, name in zip(once["source"], once["name"], strict=True)
    ]


def _prepared(
    table: pd.DataFrame, tasks: list[ClipTask], pack: PackWriter | None, processes: int | None
) -> Iterator[dict[str, Any]]:
    """Yields the manifest columns of each clip, in order; writes decoded clips to `pack` as they come."""
    results = track(run_guarded(prepare_clip, tasks, seconds_allowed, processes), "prepare", total=len(tasks))
    for clip_id, name, again in zip(table["id"], table["name"], table["id"].duplicated(), strict=True):
        result = next(results) if not again else Failure("duplicate id")
        if isinstance(result, Failure):
            result = Prepared({"status": "unusable", "reason": result.reason})
        if pack and result.facts["status"] == "ok":
            pack.add(clip_id, result.facts["digest"], result.video, result.audio)
        yield (
            dict.fromkeys(manifest.MANIFEST_COLUMNS[5:12])
            | {"has_video": False, "has_audio": False, "digest": ""}
            | result.facts
            | {"path": str(Path(name).with_name(result.facts.get("path", Path(name).name)))}
        )
    next(results, None)  # ends the generator, and with it the progress bar


def _publish(rows: pd.DataFrame, out: Path, wanted: _Wanted, files: Made, pack: PackWriter | None) -> None:
    """Replaces the old results by the new ones; clips of other settings and raw files are removed last."""
    _publish_pack(out / "packed", files, pack)
    usable = rows[rows["status"] == "ok"]
    with files.writing(out / "manifest.csv") as temporary:
        manifest.write_manifest(temporary, rows)
    summary = {
        "dataset": wanted.dataset,
        "hash": manifest.read_manifest(out / "manifest.csv").hash,
        "expected": len(rows),
        "found": int((rows["reason"] != "missing").sum()),
        "usable": len(usable),
        "splits": {split: int((usable["split"] == split).sum()) for split in listing.SPLIT_NAMES},
        "reasons": manifest.reasons(rows),
        "classes": manifest.class_counts(rows),
        "clips": wanted.clips.model_dump(mode="json"),
    }
    with files.writing(out / "summary.json") as temporary:
        write_json(temporary, summary, sealed=True)
    others = files.sweep(out / "clips", keep={out / path for path in usable["path"]})
    if others:
        shown = f"{others[0]}{f' and {len(others) - 1} more' if len(others) > 1 else ''}"
        print(f"xkd: not known to be prepared clips, left where they are: {shown}", file=sys.stderr)


def _publish_pack(target: Path, files: Made, pack: PackWriter | None) -> None:
    for name in PACK_FILES:
        files.clear(target / name)
    if pack:
        pack.close()
        for name in reversed(PACK_FILES):
            files.publish(pack.folder / name, target / name)
    else:
        with suppress(OSError):
            target.rmdir()


def _check_usable(rows: pd.DataFrame, raw: Path, require: str) -> None:
    if not (rows["status"] == "ok").any():
        reasons = ", ".join(f"{count} {reason}" for reason, count in manifest.reasons(rows).items())
        raise UserError(
            f"{raw}: none of {len(rows)} clips is usable with require '{require}' ({reasons}); nothing changed"
        )


def _check_apart(raw: Path, sources: Iterable[str], out: Path) -> None:
    folders = {Path(os.path.realpath(out / name)): out / name for name in ("clips", "packed")}
    for source in sources:
        for folder in folders.keys() & set(Path(os.path.realpath(raw.parent / source)).parents):
            raise UserError(
                f"{raw}: lists {source}, which lies in {folders[folder]}, where prepared clips go; "
                "move the raw files or give another --out"
            )


def _adopt_older(files: Made, out: Path) -> None:
    """Lists what an earlier version prepared, which kept no journal, as far as it can be proved."""
    if files.listed:
        return
    with suppress(UserError):
        rows = manifest.read_manifest(out / "manifest.csv").rows
        files.adopt(out / "manifest.csv")
        for path, digest in zip(rows["path"], rows["digest"], strict=True):
            files.adopt(out / path, digest)
    with suppress(OSError, ValueError):
        if {"dataset", "hash", "clips"} <= read_json(out / "summary.json").keys():
            files.adopt(out / "summary.json")
    with suppress(UserError):
        Pack(out / "packed")
        for name in PACK_FILES:
            files.adopt(out / "packed" / name)


def _dataset_of(params: Params, raw: Path) -> str:
    """Returns the name of the data set that the index belongs to: as `download` noted, else params.dataset."""
    try:
        return str(read_json(raw.parent / "source.json")["dataset"])
    except (OSError, ValueError, KeyError):
        return params.dataset


def _key(clips: Clips) -> str:
    """Returns the name of the folder of the clips: other settings or encoder options make another one."""
    shape = clips.model_dump_json(exclude={"pack", "shortest", "silent", "pad"})
    options = json.dumps([encode.FOR_TRAINING, encode.AUDIO_OPTIONS, encode.AUDIO_BIT_RATE])
    return hashlib.sha256(f"{shape}\n{options}".encode()).hexdigest()[:8]
