"""Reads a split zip (name.z01, name.z02, ..., name.zip) as one file."""

from __future__ import annotations

import bisect
import errno
import io
import os
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xkd.errors import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LONGEST_END = 22 + 65_535  # the record at the end of a zip, with its comment


def parts_of_zip(archive: Path, shown: str) -> list[Path]:
    """Returns the parts of a split zip in order, the .zip last; a plain zip is its own only part.

    Raises:
        UserError: a part is missing, or the archive was split in a way that cannot be read here.
        zipfile.BadZipFile: the file does not end as a zip does.
    """
    last = end_of_zip(archive, shown).part
    earlier = [archive.with_suffix(f".z{number:02}") for number in range(1, last + 1)]
    missing = [part.name for part in earlier if not part.exists()]
    if missing:
        raise UserError(f"{shown}: is the last of {last + 1} parts, and {missing[0]} is missing")
    return [*earlier, archive]


class EndOfZip(NamedTuple):
    """Holds the numbers, counted from 0, of this part of a zip and of the part in which its directory begins."""

    part: int
    directory_part: int


def end_of_zip(archive: Path, shown: str) -> EndOfZip:
    """Reads the record at the end of a zip."""
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
    return EndOfZip(*struct.unpack("<HH", tail[at + 4 : at + 8]))


class Joined(io.RawIOBase):
    """Reads several files as one."""

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
