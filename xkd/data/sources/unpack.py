"""Unpacks archives safely: no path leaves the target, no links, no bombs; interrupted unpacking starts clean."""

from __future__ import annotations

import errno
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from xkd.data.sources.members import Member, Refused, archive_files, is_archive, open_members, quoted
from xkd.errors import UserError
from xkd.made import opened
from xkd.progress import track

COPY_BYTES = 1 << 20  # at a time
# Media files hardly shrink in an archive, label lists shrink tenfold.
MOST_GROWTH, ALWAYS_ALLOWED = 20, 1 << 30
FILE_COST = 4096  # bytes of disk that even an empty file takes
DEEPEST_NESTING = 3  # archives in archives
DEEPEST_FOLDER, LONGEST_NAME, LONGEST_PATH = 32, 255, 1024  # names in a path; bytes
NOT_THE_ARCHIVE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


def unpack(archive: Path, target: Path, nested: bool = False, budget: Budget | None = None) -> None:
    """Unpacks an archive into the folder `target`, which appears when it is complete.

    Args:
        archive: .zip (also the last part of a split one: name.z01, ..., name.zip), .tar, .tar.gz, .tgz or .rar.
        target: kept as it is if it exists.
        nested: unpacks archives inside, in their place.
        budget: limits the total size of everything that is unpacked for the data set.

    Raises:
        UserError: the archive is damaged, of another kind, has unsafe members, or is a RAR and no program can read it.
    """
    if target.exists():
        return
    budget = budget or Budget()
    budget.add(sum(path.stat().st_size for path in archive_files(archive)))
    with opened(target.parent, "unpack") as files:
        part = files.part(target)  # a hidden name: nobody takes it for files of the set
        part.mkdir()
        try:
            _Unpacking(part, budget).archive(
                archive, PurePosixPath(), str(archive), DEEPEST_NESTING if nested else None
            )
            part.rename(target)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise UserError(f"{target}: no space left on the disk; free some and run again") from None
            raise
        finally:
            shutil.rmtree(part, ignore_errors=True)


def members_of(archive: Path) -> Iterator[PurePosixPath]:
    """Yields the paths of the files in an archive.

    Raises:
        UserError: the archive is damaged, of another kind, or has unsafe members.
    """
    shown = str(archive)
    with _faults_named(shown), open_members(archive, shown) as members:
        for member in members:
            yield _safe(member.name)


class Budget:
    """Limits the bytes that the archives of a data set, nested ones included, may unpack to."""

    def __init__(self) -> None:
        self._packed = self._unpacked = 0

    def add(self, packed: int) -> None:
        """Adds the size of an archive on the disk; an archive inside another adds nothing."""
        self._packed += packed

    def take(self, shown: str, size: int) -> None:
        """Counts an unpacked file of `size` bytes.

        Raises:
            UserError: the archives unpack to far more than their size, as those of no data set do.
        """
        self._unpacked += size + FILE_COST
        if self._unpacked > MOST_GROWTH * self._packed + ALWAYS_ALLOWED:
            raise UserError(
                f"{shown}: {self._packed / 1e6:.0f} MB of archives would become {self._unpacked / 1e9:.1f} GB or more, "
                "which no data set here does; refused"
            )


class _Names:
    """Remembers the files that were written, so that none replaces another, on any file system."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def claim(self, path: PurePosixPath) -> None:
        same, *above = (unicodedata.normalize("NFC", str(p)).casefold() for p in (path, *path.parents[:-1]))
        if same in self._files or same in self._folders or not self._files.isdisjoint(above):
            raise Refused(
                f"{quoted(str(path))} clashes with another member: the names differ in upper and lower case at most"
            )
        self._files.add(same)
        self._folders.update(above)


class _Unpacking:
    """Writes the members of archives into a folder."""

    def __init__(self, root: Path, budget: Budget) -> None:
        self._root, self._budget, self._names = root, budget, _Names()

    def archive(self, archive: Path, place: PurePosixPath, shown: str, levels: int | None) -> None:
        """Writes the members of an archive to `place` below the folder.

        Args:
            shown: name of the archive in messages.
            levels: how deep nested archives, which are unpacked too, may go; None leaves them packed.
        """
        current, written = "", []
        with _faults_named(shown, lambda: current), open_members(archive, shown) as found:
            members = []
            for member in found:
                self._budget.take(shown, member.size)
                members.append(member)
            if not members:
                raise UserError(f"{shown}: holds no files, or only encrypted ones; replace it and run again")
            _check_space(shown, self._root, sum(member.size for member in members))
            for member in track(members, f"unpack {archive.name}"):
                current = f"member {quoted(member.name)} is "
                path = place / _safe(member.name)
                self._names.claim(path)
                _write(member, self._root / path)
                written.append(path)
        for path in written:
            if levels is not None and is_archive(path):
                self._nested(path, f"{shown}: {path}", levels)

    def _nested(self, path: PurePosixPath, shown: str, levels: int) -> None:
        if not levels:
            raise UserError(f"{shown}: archives nested deeper than {DEEPEST_NESTING} levels; refused")
        self.archive(self._root / path, path.parent, shown, levels - 1)
        (self._root / path).unlink()


@contextmanager
def _faults_named(shown: str, member: Callable[[], str] = str) -> Iterator[None]:
    """Turns the errors that libraries raise about a damaged or odd archive into one line that names it."""
    try:
        yield
    except UserError:
        raise
    except Refused as refused:
        raise UserError(f"{shown}: member {refused}; refused") from None
    except Exception as error:  # they raise anything: struct.error, NotImplementedError, UnicodeDecodeError, ...
        if isinstance(error, OSError) and error.errno in NOT_THE_ARCHIVE:
            raise
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:120] or type(error).__name__
        raise UserError(
            f"{shown}: {member()}damaged, or of a kind that cannot be read here ({reason}); replace it (delete it if "
            "xkd fetched it) and run again, or unpack it with another program and give the folder as "
            "datasets.<name>.source"
        ) from None


def _write(member: Member, path: Path) -> None:
    """Writes a member, and refuses it if it is larger than it declares."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with member.open() as source, path.open("xb") as file:
        while block := source.read(COPY_BYTES):
            left -= len(block)
            if left < 0:
                raise Refused(f"{quoted(member.name)} is larger than the archive says")
            file.write(block)
    if left:
        raise EOFError("it is cut off")


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts:
        raise Refused(f"{quoted(name)} has no name")
    if path.is_absolute() or ".." in path.parts or path.parts[0].endswith(":"):
        raise Refused(f"{quoted(name)} would leave the target folder")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise Refused(f"{quoted(name)} has a name that is no text")
    lengths = [len(part.encode()) for part in path.parts]
    if len(lengths) > DEEPEST_FOLDER or max(lengths) > LONGEST_NAME or sum(lengths) > LONGEST_PATH:
        raise Refused(f"{quoted(name)} has a name that is too long or too deep")
    return path


def _check_space(shown: str, folder: Path, unpacked: int) -> None:
    free = shutil.disk_usage(folder).free
    if unpacked > free:
        raise UserError(f"{shown}: needs {unpacked / 1e9:.1f} GB to unpack, {free / 1e9:.1f} GB are free; free some")
