"""Checkpoints: what a run needs to go on after it was stopped, killed or crashed.

A run's folder holds the newest checkpoint and the one before. Each is a `torch.save` archive that `torch.load(...,
weights_only=True)` reads: format version, effective settings, what decides the result (`identity`), and the state.
They are no outputs of the engines, since those are deleted before a rerun.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from xkd.errors import UserError
from xkd.files import locked, replacing, sync
from xkd.training.distributed import ALONE, TrainingGroup

NEWEST, PREVIOUS, DAMAGED, ASIDE = "last.pt", "previous.pt", "damaged.pt", "set-aside"
LOG = "log.txt"
FORMAT = 2
DIFFERENCES_SHOWN = 6  # differences in an error message


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the folder's lock: an engine that was killed may have left its trainer running.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"{folder}: another process is training this run; wait for it or stop it first (its log: {folder / LOG})"
    with locked(folder / "lock", busy):
        for part in folder.glob(f".{NEWEST}.*.part"):  # of a process that was killed while it saved
            part.unlink()
        _keep_log(folder)
        yield


def _keep_log(folder: Path) -> None:
    """Gives the log another name: engines remove a job's log before they start it again, though this job may live."""
    with suppress(OSError):  # a terminal or a pipe, or a log on another disk
        (folder / LOG).unlink(missing_ok=True)
        if stat.S_ISREG(os.fstat(2).st_mode):
            os.link(os.readlink("/proc/self/fd/2"), folder / LOG)


def keep(folder: Path, identity: dict[str, Any], settings: dict[str, Any], state: dict[str, Any]) -> None:
    """Writes the newest checkpoint whole or not at all; the one that was newest is kept.

    Args:
        folder: of the run.
        identity: flat mapping of all that decides the result.
        settings: the effective settings, for people.
        state: of the trainer.

    Raises:
        UserError: it cannot be written; both old checkpoints are as they were.
    """
    newest = folder / NEWEST
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(newest) as path:
            with open(path, "wb") as handle:
                torch.save({"format": FORMAT, "identity": identity, "settings": settings, **state}, handle)
            sync(path)
            if newest.exists():
                os.replace(newest, folder / PREVIOUS)
        sync(folder)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{newest}: the checkpoint cannot be written ({_reason(error)}); the one before is kept. "
            "Make room and run the same command again: it goes on from there"
        ) from error


def unfinished(folder: Path, identity: dict[str, Any], resume: str = "same") -> dict[str, Any] | None:
    """Returns the newest checkpoint that can be read, or None where there is none.

    Where the newest is damaged, the one before takes its place, and a line on standard error says so.

    Args:
        folder: of the run; its lock is held.
        identity: of the run that is to go on.
        resume: what to do with a checkpoint of another identity: "same" refuses it, "changed" goes on from it,
            "anew" puts it aside.

    Raises:
        UserError: the checkpoint has another identity or format, or neither file can be read.
    """
    try:
        state = _newest_good(folder)
    except UserError:
        if resume != "anew":
            raise
        state = {}
    if state is None:
        return None
    if state.get("format") != FORMAT:
        differences = [f"its format is {state.get('format', 'older')}, this version of xkd reads {FORMAT}"]
    else:
        differences = list(_differences(state.get("identity", {}), identity))
        if resume == "changed" and differences:
            _warn(f"{folder}: going on although {_listed(differences)}")
        if resume == "changed" or not differences:
            return state
    if resume == "anew":
        _set_aside(folder)
        return None
    raise UserError(
        f"{folder}: an unfinished run is here, but {_listed(differences)}. Undo that; or set XKD_RESUME=changed to go "
        "on from it all the same, or XKD_RESUME=anew to put it aside and start over, in front of the command "
        "(XKD_RESUME=anew make table); `--resume` takes the same words"
    )


def shared(
    folder: Path, identity: dict[str, Any], resume: str = "same", group: TrainingGroup = ALONE
) -> dict[str, Any] | None:
    """Returns in every process what `unfinished` finds in the first one, whose lock it is.

    Raises:
        UserError: as `unfinished`.
    """
    state = None
    with group.together():
        if group.first:
            state = unfinished(folder, identity, resume)
    (exists,) = group.most(state is not None)
    if exists and state is None:
        state = content(folder / NEWEST, checked=True)
    return state


def content(path: Path, checked: bool = False) -> dict[str, Any]:
    """Returns what a checkpoint holds.

    Args:
        checked: another process has just compared its checksums.

    Raises:
        ValueError: it is damaged or cut short.
    """
    try:
        if not checked:
            with zipfile.ZipFile(path) as archive:
                record = archive.testzip()  # torch.load does not compare the checksums that torch.save writes
            if record is not None:
                raise ValueError(f"checksum of {record}")
        held: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        return held
    except Exception as error:  # damaged bytes raise almost anything, such as positions before the start
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise ValueError(_reason(error)) from error


def remove(folder: Path) -> None:
    """Deletes the checkpoints of a finished run, but not what was put aside."""
    for name in (NEWEST, PREVIOUS, DAMAGED, LOG):
        (folder / name).unlink(missing_ok=True)


def remove_all(folder: Path) -> None:
    """Does the same in every folder of a folder, and in itself."""
    for each in (*folder.glob("*/"), folder):
        remove(each)


def forget_previous(folder: Path) -> None:
    """Deletes all checkpoints but the newest."""
    for name in (PREVIOUS, DAMAGED):
        (folder / name).unlink(missing_ok=True)


def _newest_good(folder: Path) -> dict[str, Any] | None:
    newest, previous = folder / NEWEST, folder / PREVIOUS
    problem = None
    if newest.exists():
        try:
            return content(newest)
        except ValueError as error:
            problem = str(error)
    if not previous.exists():
        if problem:
            raise _unreadable(newest, problem)
        return None
    try:
        state = content(previous)
    except ValueError as error:
        raise _unreadable(previous if problem is None else newest, problem or str(error)) from None
    if problem:
        _warn(f"{newest} is damaged ({problem}); going on from the one before, {previous.name}")
        os.replace(newest, folder / DAMAGED)
    # A damaged file must not become the previous one when the next is saved.
    os.replace(previous, newest)
    return state


def _unreadable(path: Path, problem: str) -> UserError:
    return UserError(
        f"{path}: the checkpoint is damaged ({problem}) and there is no good one before it; "
        "set XKD_RESUME=anew to put it aside and start over"
    )


def _set_aside(folder: Path) -> None:
    number = 1 + sum(1 for _ in folder.glob(f"{ASIDE}-*"))
    aside = folder / f"{ASIDE}-{number}"
    aside.mkdir()
    for name in (NEWEST, PREVIOUS, DAMAGED):
        if (folder / name).exists():
            os.replace(folder / name, aside / name)
    _warn(f"starting over; the old checkpoint is now in {aside}")


def _differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    missing = "(absent)"
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key, missing), new.get(key, missing)
        if before != now:
            yield f"{key} was {before}, is {now}"


def _listed(differences: list[str]) -> str:
    more = len(differences) - DIFFERENCES_SHOWN
    return "; ".join(differences[:DIFFERENCES_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _reason(error: BaseException) -> str:
    """Returns what went wrong below: torch reports a failed write as an assertion about positions."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    lines = str(error).strip().splitlines()
    return (cause and cause.strerror) or (lines[0] if lines else type(error).__name__)


def _warn(message: str) -> None:
    print(f"xkd: warning: {message}", file=sys.stderr, flush=True)
