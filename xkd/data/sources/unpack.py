"""Archives to files, safely: no path leaves the target, no links, no bombs; interrupted unpacking starts clean.

Members are listed, checked and written by this module; zipfile, tarfile and rarfile only read them. What is not a plain
file or a folder is refused, since none of the data sets holds such a thing.
"""

from __future__ import annotations

import bisect
import errno
import gzip
import importlib
import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, TYPE_CHECKING, NamedTuple

from xkd.errors import UserError
from xkd.progress import track

if TYPE_CHECKING:
    import rarfile
    from _typeshed import WriteableBuffer

BLOCK = 1 << 20
LONGEST_END = 22 + 65_535  # of a zip, with its comment
# Media files hardly shrink in an archive, label lists shrink tenfold.
MOST_GROWTH, ALWAYS_ALLOWED = 20, 1 << 30
RAR_TOOLS = (
    "install one of unrar, unar, 7zip, bsdtar (Debian, Ubuntu: apt install unar; without root: conda install 7zip)"
)


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path there, its size as declared, and how to read it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, target: Path, nested: bool = False) -> None:
    """Puts the files of an archive into the folder `target`, which appears when it is complete.

    Args:
        archive: .zip (also the last part of a split one: name.z01, name.z02, ..., name.zip), .tar, .tar.gz, .tgz or .rar.
        target: kept as it is if it exists.
        nested: unpacks archives of the same kind inside, in their place.

    Raises:
        UserError: damaged, of another kind, with members that are unsafe, or a RAR and no tool to read it.
    """
    if target.exists():
        return
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _unpack_into(archive, part, archive.name)
        if nested:
            for inner in sorted(part.rglob(f"*{archive.suffix}")):
                _unpack_into(inner, inner.parent, f"{archive.name}: {inner.name}")
                inner.unlink()
        part.rename(target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"{target}: no space left on the disk; free some and run again") from None
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unpack_into(archive: Path, folder: Path, shown: str) -> None:
    try:
        with _opened(archive) as (found, packed):
            members = list(found)
            if not members:
                raise UserError(f"{archive}: holds no files, or only encrypted ones; delete it and run again")
            _check_size(archive, sum(member.size for member in members), packed)
            for member in track(members, f"unpack {shown}"):
                _write(member, folder / _safe(archive, member.name), archive)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, _rarfile().Error) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{archive}: damaged or not an archive ({reason}); delete it and run again") from None


def _write(member: Member, path: Path, archive: Path) -> None:
    """Writes at most the declared size: what declares little and brings much is refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with member.open() as source, path.open("wb") as file:
        while block := source.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise UserError(f"{archive}: {member.name} is larger than the archive says; refused")
            file.write(block)
    if left:
        raise UserError(f"{archive}: {member.name} is cut off; delete the archive and run again")


def _safe(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or (path.parts and path.parts[0].endswith(":")):
        raise UserError(f"{archive}: member '{name}' would leave the target folder; refused")
    return path


def _check_size(archive: Path, unpacked: int, packed: int) -> None:
    if unpacked > max(MOST_GROWTH * packed, ALWAYS_ALLOWED):
        raise UserError(
            f"{archive}: {packed / 1e6:.0f} MB would become {unpacked / 1e9:.1f} GB, more than any data set here; refused"
        )
    free = shutil.disk_usage(archive.parent).free
    if unpacked > free:
        raise UserError(f"{archive}: needs {unpacked / 1e9:.1f} GB to unpack, {free / 1e9:.1f} GB are free; free some")


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[Iterator[Member], int]]:
    """Members of an archive and its size on disk."""
    name = archive.name.lower()
    if name.endswith(".zip"):
        parts = _parts_of_zip(archive)
        with _Joined(parts) as joined, zipfile.ZipFile(joined) as opened:
            yield _zip_members(archive, opened, joined.starts), joined.size
    elif name.endswith((".tar", ".tar.gz", ".tgz")):
        with tarfile.open(archive) as opened:
            yield _tar_members(archive, opened), archive.stat().st_size
    elif name.endswith(".rar"):
        rarfile = _rarfile()
        with rarfile.RarFile(archive) as opened:
            yield _rar_members(archive, opened), archive.stat().st_size
    else:
        raise UserError(f"{archive}: not an archive that can be unpacked here (.zip, .tar, .tar.gz, .tgz, .rar)")


def _zip_members(archive: Path, opened: zipfile.ZipFile, starts: Sequence[int]) -> Iterator[Member]:
    """Members; in a split archive each says where it begins in its own part."""
    split = len(starts) > 1
    # zipfile reads offsets as if all were relative to the part in which the directory begins.
    assumed = starts[_end_of_zip(archive).directory_part] if split else 0
    for info in opened.infolist():
        if info.external_attr >> 28 == 0xA:
            raise UserError(f"{archive}: member '{info.filename}' is a link; refused")
        if info.flag_bits & 1:
            raise UserError(
                f"{archive}: member '{info.filename}' is encrypted; not a data set from its official source"
            )
        if split:
            info.header_offset += starts[info.volume] - assumed
            if hasattr(info, "_end_offset"):  # newer Pythons compare with the uncorrected offset of the next member
                info._end_offset = None
        if not info.is_dir():
            yield Member(info.filename, info.file_size, partial(opened.open, info))


def _tar_members(archive: Path, opened: tarfile.TarFile) -> Iterator[Member]:
    for info in opened:
        if info.isfile():
            yield Member(info.name, info.size, partial(_open_in_tar, opened, info))
        elif not info.isdir():
            raise UserError(f"{archive}: member '{info.name}' is a link or a device; refused")


def _open_in_tar(opened: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    source = opened.extractfile(info)
    if source is None:
        raise tarfile.ReadError(f"no content of {info.name}")
    return source


def _rar_members(archive: Path, opened: rarfile.RarFile) -> Iterator[Member]:
    infos = opened.infolist()
    if any(info.compress_type != 0x30 for info in infos if info.is_file()):
        _need_rar_tool(archive)
    for info in infos:
        if info.is_file():
            yield Member(info.filename, info.file_size, partial(opened.open, info))
        elif not info.is_dir():
            raise UserError(f"{archive}: member '{info.filename}' is a link; refused")


def _rarfile() -> ModuleType:
    return importlib.import_module("rarfile")


def _need_rar_tool(archive: Path) -> None:
    rarfile = _rarfile()
    try:
        rarfile.tool_setup()
    except rarfile.RarCannotExec:
        raise UserError(f"{archive}: no program to read RAR archives; {RAR_TOOLS} and run again") from None


def _parts_of_zip(archive: Path) -> list[Path]:
    """The parts of a split zip in order, the .zip last; a plain one is its own only part."""
    last = _end_of_zip(archive).part
    parts = [archive.with_suffix(f".z{number:02}") for number in range(1, last + 1)]
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        raise UserError(f"{archive}: is the last of {last + 1} parts, and {missing[0]} is missing")
    return [*parts, archive]


class _EndOfZip(NamedTuple):
    """From the record at the end of a zip: the number of this part, counted from 0, and of that with the directory."""

    part: int
    directory_part: int


def _end_of_zip(archive: Path) -> _EndOfZip:
    with archive.open("rb") as file:
        file.seek(max(archive.stat().st_size - LONGEST_END, 0))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if not 0 <= at <= len(tail) - 22:
        raise zipfile.BadZipFile("no end of a zip; incomplete?")
    if tail[at - 20 : at - 16] == b"PK\x06\x07" and tail[at + 4 : at + 6] != b"\0\0":
        raise UserError(
            f"{archive}: a split archive of a kind that cannot be read here; join it with "
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
