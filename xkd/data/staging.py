"""Copies shards to a disk of the machine that reads them, from a network file system that many machines read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from xkd.data.shards import ShardedClips, Shards, is_complete
from xkd.files import locked, replacing
from xkd.progress import say, track

LOCK = ".xkd-stage.lock"


def stage(clips: ShardedClips | None, folder: str) -> None:
    """Copies the shards of these clips to a local folder, from which they are then read.

    One process of a machine copies while others wait; what is there already is not copied again. Where that fails,
    e.g. on a disk that is too small, a line says so, and shards without a copy are read where they are.

    Args:
        clips: None where there are no shards.
        folder: environment variables in it are replaced.
    """
    if clips is None:
        say("training.stage_to: these clips are not packed into shards (datasets.<name>.shards): nothing is copied")
        return
    shards, place = clips.shards, Path(os.path.expandvars(folder))
    if "$" in str(place):
        _refuse(shards, f"{folder} names a variable that is not set")
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
        with locked(place / LOCK):
            _copy(shards, clips.needed(), place)
    except OSError as error:
        _refuse(shards, f"{error.filename or place}: {error.strerror}")
    shards.local = place


def _copy(shards: Shards, needed: Iterable[int], place: Path) -> None:
    for left in place.glob(".*.tar.*.part"):  # of a process that was killed: no other one copies now
        left.unlink()
    missing = [shard for shard in needed if not is_complete(place / shards.names[shard], shards.sizes[shard])]
    size, free = sum(shards.sizes[shard] for shard in missing), shutil.disk_usage(place).free
    if size > free:
        _refuse(shards, f"{place} has {free / 1e9:.1f} GB free, and the shards take {size / 1e9:.1f} GB")
        return
    for shard in track(missing, "copying shards", total=len(missing)):
        with replacing(place / shards.names[shard]) as temporary:
            shutil.copyfile(shards.folder / shards.names[shard], temporary)


def _refuse(shards: Shards, why: str) -> None:
    say(f"training.stage_to: {why}; shards are read from {shards.folder}")
