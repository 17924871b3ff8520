"""Downloads files: resumes, tries again, and verifies each file before it gets its name."""

from __future__ import annotations

import errno
import hashlib
import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import requests

from xkd.errors import UserError
from xkd.files import first_free, read_json, write_json
from xkd.progress import meter

BLOCK = 1 << 16  # bytes; a broken connection loses no more
TIMEOUT_SECONDS = (20, 60)  # to connect, and between two blocks
TRIES = 6  # that bring no new byte; one that brings some starts the count again
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
PERMANENT = (400, 401, 403, 404, 405, 410, 451)
LOCK = "archives.lock.json"


@dataclass(frozen=True)
class Remote:
    """Describes a file to fetch.

    Attributes:
        url: its address.
        name: its name here, which may hold folders.
        checksum: published, as "md5:..." or "sha256:..."; without one, the SHA-256 of the first download is recorded
            and must come again.
    """

    url: str
    name: str
    checksum: str = ""


def fetch_all(remotes: Sequence[Remote], folder: Path, connections: int, factor: float = 1.0) -> list[Path]:
    """Fetches the files that are not in `folder` yet, and returns the paths of all.

    Args:
        remotes: what to fetch.
        folder: gets the files, `<name>.part` while they are incomplete, and the lock file with their sizes and SHA-256.
        connections: number of files to fetch at once.
        factor: disk space needed, as a multiple of the bytes still to come (above 1 where files are unpacked later).

    Raises:
        UserError: a file does not exist or is not the expected one, no connection, no space. What came is kept.
    """
    lock = Lock(folder / LOCK)
    missing = [remote for remote in remotes if not _complete(remote, folder, lock)]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        with requests.Session() as session, ThreadPoolExecutor(connections) as pool:
            sizes = [size for size in pool.map(lambda remote: _size(session, remote, folder), missing) if size]
            here = sum(_present(_part(folder, remote)) for remote in missing)
            _check_space(folder, factor * (sum(sizes) - here))
            with meter("download", sum(sizes) if len(sizes) == len(missing) else None, here) as advance:
                stop = threading.Event()
                tasks = [pool.submit(_fetch, session, r, folder, lock, _unless(stop, advance)) for r in missing]
                try:
                    ended, _ = wait(tasks, return_when=FIRST_EXCEPTION)
                finally:  # nothing is left running after an error or Ctrl-C
                    stop.set()
                    for task in tasks:
                        task.cancel()
                for task in ended:
                    task.result()
    return [folder / remote.name for remote in remotes]


class Lock:
    """Records size and SHA-256 of fetched files. Copy or commit the file to hold other machines to the same data."""

    def __init__(self, path: Path):
        self.path = path
        self._known: dict[str, dict[str, Any]]
        try:
            self._known = read_json(path)
            if not all(
                isinstance(facts, dict) and {"size", "sha256"} <= facts.keys() for facts in self._known.values()
            ):
                raise ValueError("an entry lacks size or sha256")
        except FileNotFoundError:
            self._known = {}
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not readable ({error}); restore it, or delete it to accept new files") from None
        self._writing = threading.Lock()

    def __getitem__(self, name: str) -> dict[str, Any] | None:
        return self._known.get(name)

    def record(self, name: str, facts: dict[str, Any]) -> None:
        """Adds a file, and writes the lock."""
        with self._writing:
            self._known = dict(sorted({**self._known, name: facts}.items()))
            write_json(self.path, self._known)


def verify(path: Path, remote: Remote, known: dict[str, Any] | None) -> dict[str, Any]:
    """Returns address, size and SHA-256 of a file, if it is the expected one.

    Raises:
        UserError: it differs from the published checksum or from the one of the first download.
    """
    digests = {kind: hashlib.new(kind) for kind in {"sha256", remote.checksum.partition(":")[0] or "sha256"}}
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            for digest in digests.values():
                digest.update(block)
    kind, _, published = remote.checksum.partition(":")
    if published and digests[kind].hexdigest() != published:
        raise UserError(f"{remote.url}: {kind} is {digests[kind].hexdigest()}, published is {published}")
    facts = {"url": remote.url, "size": path.stat().st_size, "sha256": digests["sha256"].hexdigest()}
    if known and known["sha256"] != facts["sha256"]:
        raise UserError(
            f"{remote.url}: sha256 is {facts['sha256']}, but {known['sha256']} was recorded at first download"
        )
    return facts


class _Stopped(Exception):
    """Another download has failed."""


def _unless(stop: threading.Event, advance: Callable[[int], None]) -> Callable[[int], None]:
    def guarded(count: int) -> None:
        if stop.is_set():
            raise _Stopped
        advance(count)

    return guarded


def _complete(remote: Remote, folder: Path, lock: Lock) -> bool:
    """Says whether the file was verified once and still has its size."""
    known, path = lock[remote.name], folder / remote.name
    return known is not None and path.is_file() and path.stat().st_size == known["size"]


def _fetch(session: requests.Session, remote: Remote, folder: Path, lock: Lock, advance: Callable[[int], None]) -> None:
    path, part = folder / remote.name, _part(folder, remote)
    part.parent.mkdir(parents=True, exist_ok=True)
    by_hand = path.is_file()  # or its lock is gone
    if not by_hand:
        _download(session, remote, part, advance)
    found = path if by_hand else part
    try:
        facts = verify(found, remote, lock[remote.name])
    except UserError as error:
        wrong = first_free(path.with_name(path.name + ".wrong" + (f".{n}" if n > 1 else "")) for n in count(1))
        found.rename(wrong)
        raise UserError(
            f"{error}; kept as {wrong}. Try again; if the file was really replaced, delete its entry in {lock.path}"
        ) from None
    if not by_hand:
        part.rename(path)
    lock.record(remote.name, facts)


def _download(session: requests.Session, remote: Remote, part: Path, advance: Callable[[int], None]) -> None:
    """Appends to `part` until it is complete; tries again with growing pauses."""
    tries, pause = 0, FIRST_PAUSE
    while True:
        before = _present(part)
        try:
            _transfer(session, remote, part, advance)
            return
        except OSError as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise UserError(
                    f"{part.parent}: no space left on the disk; free some and run again, what came is kept"
                ) from None
            if not isinstance(error, requests.RequestException):
                raise
            tries = 1 if _present(part) > before else tries + 1
            pause = FIRST_PAUSE if _present(part) > before else min(2 * pause, LONGEST_PAUSE)
            if tries >= TRIES or _permanent(error):
                raise _explained(remote, part.parent, error) from None
        time.sleep(pause * random.uniform(0.75, 1.25))


def _transfer(session: requests.Session, remote: Remote, part: Path, advance: Callable[[int], None]) -> None:
    """Opens one connection and appends what the server sends."""
    begin = _present(part)
    stamp = part.with_name(part.name + ".etag")  # names the version that the beginning is from
    headers = {"Accept-Encoding": "identity"}
    if begin:
        headers["Range"] = f"bytes={begin}-"
        if stamp.exists():
            headers["If-Range"] = stamp.read_text()
    with session.get(remote.url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        if begin and answer.status_code == 416 and answer.headers.get("Content-Range") == f"bytes */{begin}":
            stamp.unlink(missing_ok=True)
            return
        answer.raise_for_status()
        resumed = answer.status_code == 206
        if begin and not resumed:
            advance(-begin)
        tag = answer.headers.get("ETag", "")
        if tag and not tag.startswith("W/"):
            stamp.write_text(tag)
        expected = (begin if resumed else 0) + int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if resumed else "wb") as file:
            for block in answer.iter_content(BLOCK):
                file.write(block)
                advance(len(block))
    if answer.headers.get("Content-Length") and _present(part) != expected:
        raise requests.ConnectionError(f"ended after {_present(part)} of {expected} bytes")
    stamp.unlink(missing_ok=True)


def _size(session: requests.Session, remote: Remote, folder: Path) -> int | None:
    """Returns the bytes of the whole file, None where the server does not say."""
    try:
        answer = session.head(remote.url, allow_redirects=True, timeout=TIMEOUT_SECONDS)
    except requests.RequestException:
        return None  # fetching will try longer, and say more
    if answer.status_code in PERMANENT and answer.status_code != 405:
        raise _explained(remote, folder, requests.HTTPError(response=answer))
    return int(answer.headers.get("Content-Length") or 0) or None


def _check_space(folder: Path, needed: float) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: needs {needed / 1e9:.1f} GB, archives and what is in them, and {free / 1e9:.1f} GB are free; "
            "free some, or run it on a larger disk"
        )


def _permanent(error: requests.RequestException) -> bool:
    return error.response is not None and error.response.status_code in PERMANENT


def _explained(remote: Remote, folder: Path, error: requests.RequestException) -> UserError:
    answer = error.response
    reason = _short(error) if answer is None else f"{answer.status_code} {answer.reason}"
    return UserError(
        f"{remote.url}: cannot be fetched ({reason}); what came is in {folder}. Run again to go on, or give a mirror "
        "or a local copy as datasets.<name>.source"
    )


def _short(error: Exception) -> str:
    """Returns the innermost reason of nested network errors."""
    while True:
        inner = getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, Exception)), None)
        if not isinstance(inner, Exception):
            return " ".join(str(error).split())[:120] or type(error).__name__
        error = inner


def _part(folder: Path, remote: Remote) -> Path:
    path = folder / remote.name
    return path.with_name(path.name + ".part")


def _present(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
