"""Writes files that appear whole or not at all; checks, lists, hashes and locks files."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from xkd.errors import UserError

PART = ".part"  # ends temporary names
LEASE_SECONDS = 60.0
SEAL = "check"  # key of a JSON file
HASH = "sha256:"  # how its value begins, unlike those of other keys
SEALED = len(HASH) + 64 + len('"\n}\n')  # bytes from its value on
_VALUE = re.compile(rf"{HASH}[0-9a-f]{{64}}".encode())
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}  # errors of file systems without locks


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; moves it there at the end, removes it on an error.

    A path that is a temporary name itself is written as it is: whoever made it moves it. What a process of this machine
    has left that was killed while it wrote the same file is removed.
    """
    if path.name.startswith(".") and path.suffix == PART:
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = f".{path.name}.{platform.node().partition('.')[0][:32]}."
    _remove_left(path.parent, mine)
    temporary = path.with_name(f"{mine}{os.getpid()}.{secrets.token_hex(2)}{PART}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:  # a failed write does not name its file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _remove_left(folder: Path, prefix: str) -> None:
    for left in folder.glob(f"{glob.escape(prefix)}*{PART}"):
        import psutil  # rarely needed

        writer = left.name.removeprefix(prefix).partition(".")[0]
        if writer.isdecimal() and not psutil.pid_exists(int(writer)):
            left.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Locks a file for the `with` block, at most until the process ends; creates the file if it does not exist.

    Args:
        path: the file.
        busy: what to say if another process holds the lock; None waits for it.

    Raises:
        UserError: another process holds the lock; the message is `busy`.
    """
    try:
        lock = acquired(path, wait=busy is None)
    except Timeout:
        raise UserError(busy or f"{path}: locked") from None
    try:
        yield
    finally:
        lock.release()


def acquired(path: Path, wait: bool) -> BaseFileLock:
    """Locks a file until `release`, see `locked`.

    Where the file system has no locks, another file says who holds it. That process renews the file: it is taken away
    from one that ended, on another machine `LEASE_SECONDS` after it did.

    Raises:
        filelock.Timeout: another process holds the lock, and `wait` is false.
    """
    lock: BaseFileLock = FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        lease = path.with_name(f"{path.name}.lease")
        _warn_of_leases(error.strerror, lease)
        lock = SoftFileLease(lease, lease_duration=LEASE_SECONDS, timeout=-1 if wait else 1.5 * LEASE_SECONDS)
        lock.acquire()
    return lock


@cache
def _warn_of_leases(reason: str, lease: Path) -> None:
    print(f"xkd: warning: {lease}: stands for a lock, which this file system does not have ({reason})", file=sys.stderr)


def check_output(path: Path, inputs: Iterable[Path], force: bool = False, ours: bool = False) -> None:
    """Checks that a file can be written under a name, before any work is done for it.

    Args:
        path: the name.
        inputs: files that are read; links to the same file count too.
        force: whether the user allows an existing file to be replaced; an input is never replaced.
        ours: whether the existing file is known to come from the same command.

    Raises:
        UserError: an input, or another file or folder, has the name, or the folder is not writable.
    """
    for place in (path, *path.parents):
        if os.path.lexists(place):
            break
    if place != path:
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            raise UserError(f"{path}: cannot be written, {place} is {'not writable' if place.is_dir() else 'a file'}")
        return
    for source in inputs:
        if source.exists() and path.exists() and path.samefile(source):
            raise UserError(f"{path}: is the input {source}, which is never replaced; give another name")
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise UserError(f"{path}: {'a folder' if path.is_dir() else 'not a regular file'}; name a file")
    if not (force or ours):
        raise UserError(f"{path}: already exists; give another name, or replace it with --force")


def first_free(names: Iterable[Path]) -> Path:
    """Returns the first name that does not exist, not even as a broken link."""
    return next(name for name in names if not os.path.lexists(name))


def files_in(folder: Path) -> list[Path]:
    """Returns all files below a folder, sorted."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, would survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Returns the hash of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object, without its seal.

    Raises:
        OSError: no such file, or not readable.
        ValueError: not JSON, or not an object, or not the bytes that were sealed.
    """
    try:
        values = json.loads(check_seal(path.read_bytes()))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        kind = type(values).__name__
        raise ValueError(f"an object was expected, found {kind}")  # noqa: TRY004 (it is about the content)
    values.pop(SEAL, None)
    return values


def write_json(path: Path, values: dict[str, Any], sealed: bool = False) -> None:
    """Writes indented JSON, keys in the order given.

    Args:
        sealed: a last key, `SEAL`, holds the SHA-256 of all that precedes it, and readers compare it.
    """
    text = json.dumps(values | {SEAL: ""} if sealed else values, indent=2)
    if sealed:
        head = text.removesuffix('"\n}')
        text = f'{head}{HASH}{hashlib.sha256(head.encode()).hexdigest()}"\n}}'
    with replacing(path) as temporary:
        temporary.write_text(text + "\n")


def check_seal(content: bytes) -> str:
    """Returns the text of a file that `write_json` wrote, or any other that has no seal.

    Raises:
        ValueError: it has one, but is damaged or edited.
    """
    text = content.decode("utf-8")
    head, value, tail = content[:-SEALED], content[-SEALED:-4], content[-4:]
    # One flipped bit leaves two of the three signs of a seal.
    signs = head.endswith(f'"{SEAL}": "'.encode()), _VALUE.fullmatch(value), tail == b'"\n}\n'
    if (signs[0] or signs[1]) and not (all(signs) and f"{HASH}{hashlib.sha256(head).hexdigest()}".encode() == value):
        raise ValueError("damaged or edited: it is not as xkd wrote it")
    return text


def digested(content: bytes) -> bytes:
    """Returns content with its SHA-256 behind it."""
    return content + hashlib.sha256(content).digest()


def undigested(content: bytes) -> bytes:
    """Returns content that `digested` returned.

    Raises:
        ValueError: it is damaged.
    """
    whole, digest = content[:-32], content[-32:]
    if hashlib.sha256(whole).digest() != digest:
        raise ValueError("damaged, or of an earlier version")
    return whole
