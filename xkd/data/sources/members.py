"""Lists and reads the files in archives, with zipfile, tarfile and rarfile.

Links and devices are refused: no data set holds any.
"""

from __future__ import annotations

import glob
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import rarfile

from xkd.data.sources.split_zip import Joined, end_of_zip, parts_of_zip
from xkd.errors import UserError

ARCHIVE_SUFFIXES = (".zip", ".rar", ".tar", ".tar.gz", ".tgz")
LONGEST_HEADER = 16 << 20  # bytes of a header in a tar; tarfile reads it into memory
RAR_TOOLS = (
    "install one of unrar, unar, 7zip, bsdtar (Debian, Ubuntu: apt install unar; without root: conda install 7zip)"
)
LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, *LONG_NAMES)


@dataclass(frozen=True)
class Member:
    """Describes a file in an archive: its path there, its declared size in bytes, and a function that opens it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


class Refused(Exception):
    """A member is not safe to write; the message names it."""


def is_archive(path: Path | PurePosixPath) -> bool:
    """Says whether the name is that of an archive."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def archive_files(archive: Path) -> list[Path]:
    """Returns the files that make up an archive: a split zip has several, its .zip comes last."""
    return [*sorted(archive.parent.glob(f"{glob.escape(archive.stem)}.z[0-9][0-9]")), archive]


@contextmanager
def open_members(archive: Path, shown: str) -> Iterator[Iterator[Member]]:
    """Yields the members of an archive, which can be read until the block ends.

    Args:
        shown: name of the archive in messages.

    Raises:
        UserError: of another kind, a part is missing, or a RAR that needs a program which is not installed.
        Refused: a member is a link, a device or encrypted.
    """
    name = archive.name.lower()
    if name.endswith(".zip"):
        with Joined(parts_of_zip(archive, shown)) as joined, zipfile.ZipFile(joined) as opened:
            yield _zip_members(archive, shown, opened, joined.starts)
    elif name.endswith((".tar", ".tar.gz", ".tgz")):
        with tarfile.open(archive, tarinfo=_TarInfo) as opened:
            yield _tar_members(opened)
    elif name.endswith(".rar"):
        with rarfile.RarFile(archive) as opened:
            yield _rar_members(shown, opened)
    else:
        raise UserError(f"{shown}: not an archive that can be unpacked here ({', '.join(ARCHIVE_SUFFIXES)})")


def _zip_members(archive: Path, shown: str, opened: zipfile.ZipFile, starts: Sequence[int]) -> Iterator[Member]:
    """Yields the members; in a split archive, each gives its offset within its own part."""
    split = len(starts) > 1
    # zipfile reads offsets as if all were relative to the part in which the directory begins.
    assumed = starts[end_of_zip(archive, shown).directory_part] if split else 0
    for info in opened.infolist():
        if info.external_attr >> 28 == 0xA:
            raise Refused(f"{quoted(info.filename)} is a link")
        if info.flag_bits & 1:
            raise Refused(f"{quoted(info.filename)} is encrypted, as none of a data set from its official source is")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others grow in memory, unbounded
            raise NotImplementedError(f"member {quoted(info.filename)}: compression method {info.compress_type}")
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
            yield Member(info.name, info.size, partial(opened.extractfile, info))  # type: ignore[arg-type]
        elif not info.isdir():
            raise Refused(f"{quoted(info.name)} is a link or a device")


def _rar_members(shown: str, opened: rarfile.RarFile) -> Iterator[Member]:
    infos = opened.infolist()
    if any(info.compress_type != 0x30 for info in infos if info.is_file()):
        _need_rar_tool(shown)
    for info in infos:
        if info.is_file():
            yield Member(info.filename, info.file_size, partial(opened.open, info))
        elif not info.is_dir():
            raise Refused(f"{quoted(info.filename)} is a link")


def _need_rar_tool(shown: str) -> None:
    try:
        rarfile.tool_setup()
    except rarfile.RarCannotExec:
        raise UserError(f"{shown}: no program to read RAR archives; {RAR_TOOLS} and run again") from None


def quoted(name: str) -> str:
    """Returns a member's name as errors show it: quoted, and cut where it is long."""
    return repr(name if len(name) <= 80 else f"{name[:60]}...")
