"""Archives to files, safely: no path leaves the target, no links, no bombs; interrupted unpacking starts clean.

Members are listed, checked and written by this module; zipfile, tarfile and rarfile only read them. What is not a plain
file or a folder is refused, since none of the data sets holds such a thing.
"""

from __future__ import annotations

import bisect
import errno
import glob
import importlib
import io
import os
import shutil
import struct
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, TYPE_CHECKING, NamedTuple

from xkd.errors import UserError
from xkd.made import opened
from xkd.progress import track

if TYPE_CHECKING:
    import rarfile
    from _typeshed import WriteableBuffer

ARCHIVE_SUFFIXES = (".zip", ".rar", ".tar", ".tar.gz", ".tgz")
COPY_BYTES = 1 << 20
LONGEST_END = 22 + 65_535  # of a zip, with its comment
LONGEST_HEADER = 16 << 20  # of a tar's member; tarfile reads it into memory
# Media files hardly shrink in an archive, label lists shrink tenfold.
MOST_GROWTH, ALWAYS_ALLOWED = 20, 1 << 30
FILE_COST = 4096  # bytes of disk that even an empty file takes
DEEPEST_NESTING = 3  # archives in archives
DEEPEST_FOLDER, LONGEST_NAME, LONGEST_PATH = 32, 255, 1024  # names in a path; bytes
NOT_THE_ARCHIVE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
RAR_TOOLS = (
    "install one of unrar, unar, 7zip, bsdtar (Debian, Ubuntu: apt install unar; without root: conda install 7zip)"
)
EXTENDED = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path there, its size as declared, and how to read it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


class Budget:
    """The bytes that all archives of a data set may unpack to, nested ones included."""

    def __init__(self) -> None:
        self._packed = self._unpacked = 0

    def add(self, packed: int) -> None:
        """Counts an archive as it lies on the disk; one inside another has no size of its own."""
        self._packed += packed

    def take(self, shown: str, size: int) -> None:
        """Counts a file.

        Raises:
            UserError: together the archives hold more than any data set here.
        """
        self._unpacked += size + FILE_COST
        if self._unpacked > MOST_GROWTH * self._packed + ALWAYS_ALLOWED:
            raise UserError(
                f"{shown}: {self._packed / 1e6:.0f} MB of archives would become {self._unpacked / 1e9:.1f} GB or more, "
                "which no data set here does; refused"
            )


class _Names:
    """The files that one unpacking writes: none may take the place of another, whatever the file system."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def claim(self, path: PurePosixPath) -> None:
        same, *above = (unicodedata.normalize("NFC", str(p)).casefold() for p in (path, *path.parents[:-1]))
        if same in self._files or same in self._folders or not self._files.isdisjoint(above):
            raise _Refused(f"{_quoted(str(path))} clashes with another one: equal names but for upper and lower case")
        self._files.add(same)
        self._folders.update(above)


class _Refused(Exception):
    """A member that is not written; the text names it."""


def unpack(archive: Path, target: Path, nested: bool = False, budget: Budget | None = None) -> None:
    """Puts the files of an archive into the folder `target`, which appears when it is complete.

    Args:
        archive: .zip (also the last part of a split one: name.z01, name.z02, ..., name.zip), .tar, .tar.gz, .tgz or .rar.
        target: kept as it is if it exists.
        nested: unpacks archives inside, in their place.
        budget: what the archives of the data set may unpack to, all together.

    Raises:
        UserError: damaged, of another kind, with members that are unsafe, or a RAR and no tool to read it.
    """
    if target.exists():
        return
    budget = budget or Budget()
    budget.add(sum(path.stat().st_size for path in parts(archive)))
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


def is_archive(path: Path | PurePosixPath) -> bool:
    """Whether its name says so."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def parts(archive: Path) -> list[Path]:
    """The files that an archive lies in: a split zip has several."""
    return [*sorted(archive.parent.glob(f"{glob.escape(archive.stem)}.z[0-9][0-9]")), archive]


def members_of(archive: Path) -> Iterator[PurePosixPath]:
    """Paths of the files in an archive.

    Raises:
        UserError: damaged, of another kind, or with members that are unsafe.
    """
    shown = str(archive)
    with _faults_named(shown), _opened(archive, shown) as members:
        for member in members:
            yield _safe(member.name)


class _Unpacking:
    """Writes archives to a folder."""

    def __init__(self, root: Path, budget: Budget) -> None:
        self._root, self._budget, self._names = root, budget, _Names()

    def archive(self, archive: Path, place: PurePosixPath, shown: str, levels: int | None) -> None:
        """Writes what is in an archive to a place below the folder.

        Args:
            shown: how messages call it.
            levels: so deep may archives be nested in it, which are then unpacked, too; None leaves them as they are.
        """
        current, written = "", []
        with _faults_named(shown, lambda: current), _opened(archive, shown) as found:
            members = []
            for member in found:
                self._budget.take(shown, member.size)
                members.append(member)
            if not members:
                raise UserError(f"{shown}: holds no files, or only encrypted ones; replace it and run again")
            _check_space(shown, self._root, sum(member.size for member in members))
            for member in track(members, f"unpack {archive.name}"):
                current = f"member {_quoted(member.name)} is "
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
    """Turns whatever the libraries raise about a damaged or odd archive into one line that says where."""
    try:
        yield
    except UserError:
        raise
    except _Refused as refused:
        raise UserError(f"{shown}: member {refused}; refused") from None
    except Exception as error:  # they raise anything: struct.error, NotImplementedError, UnicodeDecodeError, ...
        if isinstance(error, OSError) and error.errno in NOT_THE_ARCHIVE:
            raise
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:120] or type(error).__name__
        raise UserError(
            f"{shown}: {member()}damaged, or of a kind that cannot be read here ({reason}); replace it (delete it, if xkd fetched "
            "it) and run again, or unpack it with another program and give the folder as datasets.<name>.source"
        ) from None


def _write(member: Member, path: Path) -> None:
    """Writes at most the declared size: what declares little and brings much is refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with member.open() as source, path.open("xb") as file:
        while block := source.read(COPY_BYTES):
            left -= len(block)
            if left < 0:
                raise _Refused(f"{_quoted(member.name)} is larger than the archive says")
            file.write(block)
    if left:
        raise EOFError("it is cut off")


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts:
        raise _Refused(f"{_quoted(name)} has no name")
    if path.is_absolute() or ".." in path.parts or path.parts[0].endswith(":"):
        raise _Refused(f"{_quoted(name)} would leave the target folder")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise _Refused(f"{_quoted(name)} has a name that is no text")
    lengths = [len(part.encode()) for part in path.parts]
    if len(lengths) > DEEPEST_FOLDER or max(lengths) > LONGEST_NAME or sum(lengths) > LONGEST_PATH:
        raise _Refused(f"{_quoted(name)} has a name that is too long or too deep")
    return path


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:60]}...")


def _check_space(shown: str, folder: Path, unpacked: int) -> None:
    free = shutil.disk_usage(folder).free
    if unpacked > free:
        raise UserError(f"{shown}: needs {unpacked / 1e9:.1f} GB to unpack, {free / 1e9:.1f} GB are free; free some")


@contextmanager
def _opened(archive: Path, shown: str) -> Iterator[Iterator[Member]]:
    """Members of an archive."""
    name = archive.name.lower()
    if name.endswith(".zip"):
        with _Joined(_parts_of_zip(archive, shown)) as joined, zipfile.ZipFile(joined) as opened:
            yield _zip_members(archive, shown, opened, joined.starts)
    elif name.endswith((".tar", ".tar.gz", ".tgz")):
        with tarfile.open(archive, tarinfo=_TarInfo) as opened:
            yield _tar_members(opened)
    elif name.endswith(".rar"):
        with _rarfile().RarFile(archive) as opened:
            yield _rar_members(shown, opened)
    else:
        raise UserError(f"{shown}: not an archive that can be unpacked here ({', '.join(ARCHIVE_SUFFIXES)})")


def _zip_members(archive: Path, shown: str, opened: zipfile.ZipFile, starts: Sequence[int]) -> Iterator[Member]:
    """Members; in a split archive each says where it begins in its own part."""
    split = len(starts) > 1
    # zipfile reads offsets as if all were relative to the part in which the directory begins.
    assumed = starts[_end_of_zip(archive, shown).directory_part] if split else 0
    for info in opened.infolist():
        if info.external_attr >> 28 == 0xA:
            raise _Refused(f"{_quoted(info.filename)} is a link")
        if info.flag_bits & 1:
            raise _Refused(f"{_quoted(info.filename)} is encrypted, as none of a data set from its official source is")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others grow in memory, unbounded
            raise NotImplementedError(f"member {_quoted(info.filename)}: compression method {info.compress_type}")
        if split:
            info.header_offset += starts[info.volume] - assumed
            if hasattr(info, "_end_offset"):  # newer Pythons compare with the uncorrected offset of the next member
                info._end_offset = None
        if not info.is_dir():
            yield Member(info.filename, info.file_size, partial(opened.open, info))


class _TarInfo(tarfile.TarInfo):
    """Refuses headers that would fill the memory."""

    def _proc_member(self, opened: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in EXTENDED and self.size > LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(opened)  # type: ignore[misc, no-any-return]


def _tar_members(opened: tarfile.TarFile) -> Iterator[Member]:
    for info in opened:
        if info.isfile():
            yield Member(info.name, info.size, partial(_open_in_tar, opened, info))
        elif not info.isdir():
            raise _Refused(f"{_quoted(info.name)} is a link or a device")


def _open_in_tar(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    source = opened.extractfile(info)
    if source is None:
        raise tarfile.ReadError(f"no content of {info.name}")
    return source


def _rar_members(shown: str, opened: rarfile.RarFile) -> Iterator[Member]:
    infos = opened.infolist()
    if any(info.compress_type != 0x30 for info in infos if info.is_file()):
        _need_rar_tool(shown)
    for info in infos:
        if info.is_file():
            yield Member(info.filename, info.file_size, partial(opened.open, info))
        elif not info.is_dir():
            raise _Refused(f"{_quoted(info.filename)} is a link")


def _rarfile() -> ModuleType:
    return importlib.import_module("rarfile")


def _need_rar_tool(shown: str) -> None:
    rarfile = _rarfile()
    try:
        rarfile.tool_setup()
    except rarfile.RarCannotExec:
        raise UserError(f"{shown}: no program to read RAR archives; {RAR_TOOLS} and run again") from None


def _parts_of_zip(archive: Path, shown: str) -> list[Path]:
    """The parts of a split zip in order, the .zip last; a plain one is its own only part."""
    last = _end_of_zip(archive, shown).part
    earlier = [archive.with_suffix(f".z{number:02}") for number in range(1, last + 1)]
    missing = [part.name for part in earlier if not part.exists()]
    if missing:
        raise UserError(f"{shown}: is the last of {last + 1} parts, and {missing[0]} is missing")
    return [*earlier, archive]


class _EndOfZip(NamedTuple):
    """From the record at the end of a zip: the number of this part, counted from 0, and of that with the directory."""

    part: int
    directory_part: int


def _end_of_zip(archive: Path, shown: str) -> _EndOfZip:
    with archive.open("rb") as file:
        file.seek(max(archive.stat().st_size - LONGEST_END, 0))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if not 0 <= at <= len(tail) - 22:
        raise zipfile.BadZipFile("no end of a zip; incomplete?")
    if tail[at - 20 : at - 16] == b"PK\x06\x07" and tail[at + 4 : at + 6] != b"\0\0":
        raise UserError(
            f"{shown}: a split archive of a kind that cannot be read here; join it with "
            f"`zip -s 0 {archive.name} --out joined.zip`, unpack that, and give the folder as datasets.<name>.source"
        )
    return _EndOfZip(*struct.unpack("<HH", tail[at + 4 : at + 8]))


class _Joined(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, paths: Sequence[Path]):
        self._files = [path.open("rb") for path in paths]
        sizes = [os.fstat(file.fileno()).st_size for file in self._files]
        self.starts = [sum(sizes[:number]) for number in range(len(sizes))]
        self.size, self._position = sum(sizes), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:  # zipfile expects of it what files do
            raise OSError(errno.EINVAL, "before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        if self._position >= self.size:
            return 0
        number = bisect.bisect_right(self.starts, self._position) - 1
        file = self._files[number]
        file.seek(self._position - self.starts[number])
        count = file.readinto(buffer)
        self._position += count
        return count

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
