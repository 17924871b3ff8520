"""Stage `prepare`: raw media files -> training-ready clips and their manifest."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from xkd.data import catalogue, encode, listing, manifest
from xkd.data.packed import PackWriter
from xkd.data.prepare import Prepared, file_name, prepare_clip
from xkd.data.workers import Failure, run_guarded, seconds_allowed
from xkd.errors import UserError
from xkd.files import write_json
from xkd.progress import track
from xkd.settings import Clips, Params


def run(params: Params, raw: Path, out: Path, processes: int | None = None) -> None:
    """Decodes every clip that the index `raw` lists; writes clips/, packed/, summary.json and manifest.csv.

    Clips are kept and found again by what shaped them: an interrupted call continues, a call after some files were
    added or changed makes only those, and a failed one leaves earlier results as they were.

    Args:
        processes: by default one per core; the result does not depend on it.

    Raises:
        UserError: no index, nothing in it, no usable clip, or no space left.
    """
    dataset = _dataset_of(params, raw)
    require = catalogue.required(catalogue.entry(params, dataset))
    clips = catalogue.clips(params, dataset)
    if clips.size % 2:
        raise UserError(f"clips.size: {clips.size} is odd; H.264 needs an even number of pixels")
    table = listing.read(raw)
    folder = Path("clips") / _key(clips)
    names = [file_name(clip_id, path) for clip_id, path in zip(table["id"], table["path"], strict=True)]
    table = table.assign(path=[str(folder / name) for name in names], source=table["path"])
    pack = PackWriter(out / ".packed.part") if clips.pack else None
    try:
        facts = list(_prepared(table, raw, out, clips, require, pack, processes))
        rows = table.join(pd.DataFrame(facts, index=table.index))
        _check_usable(rows, raw, require)
        _publish(rows, dataset, clips, out, folder, pack)
    except OSError as error:  # of the stage or of a process of it: never the fault of a clip
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(f"{out}: no space left on the disk; free some and run again, finished clips are kept") from None
    finally:
        if pack:
            shutil.rmtree(pack.folder, ignore_errors=True)


def _prepared(
    table: pd.DataFrame,
    raw: Path,
    out: Path,
    clips: Clips,
    require: str,
    pack: PackWriter | None,
    processes: int | None,
) -> Iterator[dict[str, Any]]:
    """Manifest columns of each clip, in order; decoded clips go to `pack` as they come."""
    once = ~table["id"].duplicated()
    pairs = zip(table["source"][once], table["path"][once], strict=True)
    tasks = [(str(raw.parent / source), str(out / path), clips, require, pack is not None) for source, path in pairs]
    results = track(run_guarded(prepare_clip, tasks, seconds_allowed, processes), "prepare", total=len(tasks))
    for clip_id, first in zip(table["id"], once, strict=True):
        result = next(results) if first else Failure("duplicate id")
        if isinstance(result, Failure):
            result = Prepared({"status": "unusable", "reason": result.reason})
        if pack and result.facts["status"] == "ok":
            pack.add(clip_id, result.facts["digest"], result.video, result.audio)
        yield (
            dict.fromkeys(manifest.COLUMNS[5:12])
            | {"has_video": False, "has_audio": False, "digest": ""}
            | result.facts
        )
    next(results, None)  # ends it, and with it its progress


def _publish(rows: pd.DataFrame, dataset: str, clips: Clips, out: Path, folder: Path, pack: PackWriter | None) -> None:
    """Puts the new results in the place of the old ones, the manifest last."""
    shutil.rmtree(out / "packed", ignore_errors=True)
    if pack:
        pack.close()
        pack.folder.rename(out / "packed")
    usable = rows[rows["status"] == "ok"]
    digest = manifest.write(out / "manifest.csv", rows)
    summary = {
        "dataset": dataset,
        "hash": digest,
        "expected": len(rows),
        "found": int((rows["reason"] != "missing").sum()),
        "usable": len(usable),
        "splits": {split: int((usable["split"] == split).sum()) for split in listing.SPLITS},
        "reasons": manifest.reasons(rows),
        "classes": manifest.class_counts(rows),
        "clips": clips.model_dump(mode="json"),
    }
    write_json(out / "summary.json", summary)
    _clean(out / "clips", keep={out / path for path in usable["path"]})


def _check_usable(rows: pd.DataFrame, raw: Path, require: str) -> None:
    if not (rows["status"] == "ok").any():
        reasons = ", ".join(f"{count} {reason}" for reason, count in manifest.reasons(rows).items())
        raise UserError(
            f"{raw}: none of {len(rows)} clips is usable with require '{require}' ({reasons}); nothing changed"
        )


def _clean(folder: Path, keep: set[Path]) -> None:
    """Removes clips of other settings and of files that are listed no more."""
    for path in list(folder.rglob("*")):
        if path.is_file() and path not in keep:
            path.unlink()
    for path in list(folder.iterdir()):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _dataset_of(params: Params, raw: Path) -> str:
    """Which entry of the catalogue the index belongs to: what `download` noted, else params.dataset."""
    try:
        dataset: str = json.loads((raw.parent / "source.json").read_text())["dataset"]
        return dataset
    except (OSError, ValueError, KeyError):
        return params.dataset


def _key(clips: Clips) -> str:
    """Names the folder of the clips: other settings or encoder options make another one."""
    shape = clips.model_dump_json(exclude={"pack"})
    options = json.dumps([encode.FOR_TRAINING, encode.AUDIO_OPTIONS, encode.AUDIO_BIT_RATE])
    return hashlib.sha256(f"{shape}\n{options}".encode()).hexdigest()[:8]
