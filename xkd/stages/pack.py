"""Stage `pack`: the prepared clips of a data set -> shards, which training reads instead of single files."""

from __future__ import annotations

import errno
import shutil
import zlib
from pathlib import Path
from typing import TypeVar

import numpy as np

from xkd import sums
from xkd.data import catalogue, manifest
from xkd.data.manifest import Manifest
from xkd.data.opening import MediaError
from xkd.data.sharding import Plan, plan_shards, write_shard
from xkd.data.shards import FOLDER, INDEX, MEMBERS, ROWS, SUMS, Shards
from xkd.data.workers import FILE_SECONDS, SECONDS_PER_MEGABYTE, Failure, run_guarded
from xkd.errors import UserError
from xkd.files import write_json
from xkd.made import Made, opened
from xkd.progress import track
from xkd.settings import Params, ShardSettings

Outcome = TypeVar("Outcome")


def run(params: Params, dataset: str, check: bool = False, processes: int | None = None) -> None:
    """Packs the usable clips of data/<dataset>/manifest.csv into data/<dataset>/shards, as the settings of it say.

    Shards that are there already are kept, so that an interrupted call continues. Others that xkd made are removed
    once the index lists the new ones.

    Args:
        check: instead, read all that was packed and compare it with its checksums.
        processes: by default one per core; the result does not depend on it.

    Raises:
        UserError: no such data set, not prepared yet, a clip that cannot be read, no space left; with `check`, shards
            that are damaged or do not belong to the manifest.
    """
    wanted = catalogue.entry(params, dataset).shards or ShardSettings()
    found = manifest.read_manifest(Path("data") / dataset / "manifest.csv")
    if found.rows.empty:
        raise UserError(f"{found.path}: no usable clip; look at its column reason")
    if check:
        _check(found, found.path.parent / FOLDER, processes)
    else:
        _pack(found, wanted, found.path.parent / FOLDER, processes)


def _pack(found: Manifest, wanted: ShardSettings, out: Path, processes: int | None) -> None:
    plans = plan_shards(found.rows, found.path.parent, wanted)
    with opened(out, "pack") as files:
        files.check_free(*(out / name for name in (INDEX, ROWS, SUMS)), *(out / plan.name for plan in plans))
        _check_room([plan for plan in plans if not (out / plan.name).exists()], out)
        tasks = [(plan, out / plan.name, files.about([plan.name])) for plan in plans]
        try:
            written = run_guarded(write_shard, tasks, lambda task: _allowed(task[0].bytes), processes)
            parts = [_whole(part) for part in track(written, "pack", total=len(tasks))]
            _publish(found, plans, parts, files)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(
                f"{out}: no space left on the disk; free some and run again, finished shards are kept"
            ) from None


def _whole(part: Outcome | Failure) -> Outcome:
    if isinstance(part, Failure):
        raise UserError(f"pack: {part.reason}; run `xkd pack` again, finished shards are kept")
    return part


def _allowed(size: float) -> float:
    """Returns the seconds after which the process that works on a shard of `size` bytes is taken to hang."""
    return FILE_SECONDS + SECONDS_PER_MEGABYTE * size / 1e6


def _check_room(plans: list[Plan], out: Path) -> None:
    needed, free = sum(plan.bytes for plan in plans), shutil.disk_usage(out).free
    if needed > free:
        raise UserError(f"{out}: the shards take {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free on this disk")


def _publish(found: Manifest, plans: list[Plan], parts: list[tuple[int, np.ndarray, np.ndarray]], files: Made) -> None:
    """Replaces the old index; shards that it does not list are removed last."""
    for number, (_, rows, _) in enumerate(parts):
        rows["shard"] = number
    every = np.concatenate([rows for _, rows, _ in parts])
    out = files.folder
    files.clear(out / INDEX)
    with files.writing(out / ROWS) as temporary, temporary.open("wb") as file:
        np.save(file, every[np.argsort(every["digest"], kind="stable")])
    with files.writing(out / SUMS) as temporary:
        np.concatenate([of_blocks for *_, of_blocks in parts]).tofile(temporary)
    index = {
        "form": plans[0].form,
        "manifest": found.hash,
        "clips": len(every),
        "sum": sums.total(sums.mapped(out / ROWS)),
        "shards": [
            {"name": plan.name, "bytes": size, "clips": len(rows)}
            for plan, (size, rows, _) in zip(plans, parts, strict=True)
        ],
    }
    with files.writing(out / INDEX) as temporary:
        write_json(temporary, index, sealed=True)
    files.sweep(out, keep={out / name for name in (INDEX, ROWS, SUMS, *(plan.name for plan in plans))})


def _check(found: Manifest, out: Path, processes: int | None) -> None:
    shards = Shards(out)
    rows = shards.find(found.rows["digest"].tolist())
    for clip_id, row in zip(found.ids, rows, strict=True):
        if row < 0:
            raise UserError(f"{out}: does not hold clip {clip_id} of {found.path}; run `xkd pack` again")
    held, ids = shards.rows["shard"][rows], np.array(found.ids, dtype=object)
    tasks = [
        (out, list(zip(rows[held == shard].tolist(), ids[held == shard], strict=True)))
        for shard in range(len(shards.names))
    ]
    checked = run_guarded(damaged, tasks, lambda _: _allowed(max(shards.sizes)), processes)
    faults = [fault for some in track(checked, "check", total=len(tasks)) for fault in _whole(some)]
    if faults:
        more = f" (and {len(faults) - 1} more clips)" if len(faults) > 1 else ""
        raise UserError(f"{faults[0]}{more}; run `xkd pack` again")
    print(f"{out}: {len(tasks)} shards, {len(found.ids)} clips, all as they were packed")


def damaged(out: Path, clips: list[tuple[int, str]]) -> list[str]:
    """Says of each damaged clip in which shard it lies; `clips` are rows and ids."""
    shards, faults = Shards(out), []
    for row, clip_id in clips:
        about = shards.rows[row]
        try:
            if any(zlib.crc32(shards.whole(row, name)) != about[name]["crc32"] for name in MEMBERS[shards.form]):
                faults.append(f"clip {clip_id}: damaged in {shards.path(int(about['shard']))}")
        except MediaError as error:
            faults.append(f"clip {clip_id}: {error}")
    return faults
