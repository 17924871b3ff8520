"""Keeps the clips of a data set in shards: plain tar files, and an index of where in them each clip lies.

The members of a clip follow each other and are named as WebDataset wants it: `<key>.json` says what the clip is; then
comes `<key>.mp4`, the file that `prepare` made, or its content, `<key>.video.npy` (frames (T, H, W, 3) uint8) and
`<key>.audio.npy` (samples (n,) int16). Nothing is compressed, so that a cut of a clip is one read at a known place.

INDEX lists the shards; ROWS has a row for each clip, sorted by the digest of its file, and SUMS a number for each block
of each shard, by which every cut is checked as it is read; both are mapped into memory. The name of a shard holds a
hash of what is in it: a shard never changes, and a copy of that name holds the same clips.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from xkd import sums
from xkd.data.opening import MediaError
from xkd.errors import UserError
from xkd.files import read_json
from xkd.modalities.video import frames_between

FOLDER, INDEX, ROWS, SUMS = "shards", "index.json", "clips.npy", "sums.bin"
ENCODED, DECODED = "encoded", "decoded"
MEMBERS = {ENCODED: ("mp4",), DECODED: ("video.npy", "audio.npy")}  # an absent stream has no member
MEMBER = np.dtype([("offset", "<u8"), ("bytes", "<u8"), ("crc32", "<u4")])
LENGTHS = ("frames", "height", "width", "samples")
OPEN_FILES = 256
Content = TypeVar("Content", bytes, np.ndarray)


def row_type(form: str) -> np.dtype:
    """Returns the type of a row of ROWS."""
    members = [(name, MEMBER) for name in MEMBERS[form]]
    lengths = [(name, "<u4") for name in LENGTHS if form == DECODED]
    return np.dtype([("digest", "<u8"), ("shard", "<u4"), *members, *lengths])


def places_of(digests: Sequence[str]) -> np.ndarray:
    """Converts digests of clip files to numbers (clips,) uint64: the order in which shards hold the clips.

    Raises:
        ValueError: one is not of 16 hexadecimal digits.
    """
    digests = digests[:]
    if set(map(len, digests)) - {16}:
        raise ValueError("a digest has not 16 digits")
    return np.frombuffer(bytes.fromhex("".join(digests)), ">u8").astype(np.uint64)


class Shards:
    """Reads clips by their row. A copy in another process opens its own files.

    Attributes:
        form: ENCODED or DECODED.
        names, sizes: of the shards.
        rows: (clips,) of `row_type`, mapped into memory.
        local: a folder that may hold copies of shards, which are read instead.
    """

    def __init__(self, folder: Path, local: Path | None = None):
        self.folder, self.local = folder, local
        try:
            index = read_json(folder / INDEX)
            self.form: str = index["form"]
            self.names = [shard["name"] for shard in index["shards"]]
            self.sizes = [shard["bytes"] for shard in index["shards"]]
            if sums.total(sums.mapped(folder / ROWS)) != index["sum"]:
                raise ValueError(f"{ROWS} is damaged")
            self.rows = np.load(folder / ROWS, mmap_mode="r").view(np.ndarray)
            self._sums = sums.mapped(folder / SUMS).view(np.uint64)
            self._first = np.insert(np.cumsum([-(-size // sums.BLOCK) for size in self.sizes]), 0, 0)
            whole = self.rows.dtype == row_type(self.form) and len(self._sums) == self._first[-1]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder}: the index cannot be read ({error}); run `xkd pack` again") from None
        if not whole:
            raise UserError(f"{folder}: {ROWS} or {SUMS} does not fit {INDEX}; run `xkd pack` again")
        self._handles: OrderedDict[int, int] = OrderedDict()

    def __reduce__(self) -> tuple[type[Shards], tuple[Path, Path | None]]:
        return Shards, (self.folder, self.local)

    def __del__(self) -> None:
        for handle in getattr(self, "_handles", {}).values():
            os.close(handle)

    def find(self, digests: Sequence[str]) -> np.ndarray:
        """Returns the row of each clip file, -1 where the shards do not hold it."""
        try:
            wanted = places_of(digests)
        except ValueError:
            return np.full(len(digests), -1)
        rows = np.searchsorted(self.rows["digest"], wanted)
        there = self.rows["digest"][np.minimum(rows, len(self.rows) - 1)] == wanted
        return np.where(there, rows, -1)

    def video(self, row: int, first: int, count: int | None) -> np.ndarray:
        """Reads frames (T, 3, H, W) uint8 of the form DECODED, `count` from number `first` on; at least the last."""
        frames, height, width = (int(self.rows[row][name]) for name in LENGTHS[:3])
        wanted, size = frames_between(first, count, frames), 3 * height * width
        cut = self._read_values(row, "video.npy", wanted.start * size, len(wanted) * size, frames * size)
        return cut.reshape(len(wanted), height, width, 3).transpose(0, 3, 1, 2)  # resizing is twice as fast so

    def audio(self, row: int, first: int, count: int) -> np.ndarray:
        """Reads samples (n,) int16 of the form DECODED, at most `count` from number `first` on."""
        samples = int(self.rows[row]["samples"])
        count = max(min(count, samples - first), 0)
        return self._read_values(row, "audio.npy", 2 * first, 2 * count, 2 * samples).view(np.int16)

    def whole(self, row: int, member: str) -> bytes:
        """Reads a member, empty where it is absent."""
        return self._read(row, member, 0, int(self.rows[row][member]["bytes"])).tobytes()

    def path(self, shard: int) -> Path:
        """Returns the copy of a shard if there is a complete one, else the shard."""
        name: str = self.names[shard]
        if self.local is not None and is_complete(self.local / name, self.sizes[shard]):
            return self.local / name
        return self.folder / name

    def check(self, shard: int) -> bool:
        """Tells whether all of a shard is as it was written."""
        begin, end = self._first[shard : shard + 2]
        return np.array_equal(sums.of_file(self.folder / self.names[shard]), self._sums[begin:end])

    def _read_values(self, row: int, member: str, first: int, count: int, size: int) -> np.ndarray:
        """Reads bytes of an array, whose values are the last `size` bytes of its member."""
        return self._read(row, member, int(self.rows[row][member]["bytes"]) - size + first, count)

    def _read(self, row: int, member: str, first: int, count: int) -> np.ndarray:
        """Reads bytes of a member, with the whole blocks that hold them, which are checked."""
        if not count:
            return np.empty(0, np.uint8)
        shard, begin = int(self.rows[row]["shard"]), int(self.rows[row][member]["offset"]) + first
        low, high = sums.around(begin, begin + count, self.sizes[shard])
        try:
            blocks = self._read_bytes(shard, low, high)
        except OSError as error:
            raise MediaError(f"{self.path(shard)}: {error.strerror}") from None
        if not sums.fit(blocks, low, self._sums[self._first[shard] :]):
            raise MediaError(f"damaged in {self.path(shard)}")
        return blocks[begin - low : begin - low + count]

    def _read_bytes(self, shard: int, begin: int, end: int) -> np.ndarray:
        content, read, handle = np.empty(end - begin, np.uint8), 0, self._handle(shard)
        while read < len(content):
            more = os.preadv(handle, [content.data[read:]], begin + read)
            if not more:
                raise MediaError(f"{self.path(shard)} ends too early")
            read += more
        return content

    def _handle(self, shard: int) -> int:
        """Opens a shard, or returns the one that is open; the one that was used least recently is closed."""
        if shard not in self._handles:
            if len(self._handles) >= OPEN_FILES:
                os.close(self._handles.popitem(last=False)[1])
            self._handles[shard] = os.open(self.path(shard), os.O_RDONLY)
        self._handles.move_to_end(shard)
        return self._handles[shard]


class ShardedClips:
    """Reads clips of a manifest, by their number there, from shards.

    Every method raises a UserError where a shard is missing or too short.

    Args:
        shards: they hold all of the clips.
        ids: of the clips.
        rows: their rows in the shards.
    """

    def __init__(self, shards: Shards, ids: Sequence[str], rows: np.ndarray):
        self.shards, self._ids, self._rows = shards, ids, rows
        self.decoded = shards.form == DECODED

    def content(self, i: int) -> bytes:
        """Reads the file of clip `i`, if shards are not decoded."""
        return self._read(i, lambda row: self.shards.whole(row, "mp4"))

    def video(self, i: int, first: int, count: int | None) -> np.ndarray:
        """Reads frames as `Shards.video`, if shards are decoded."""
        return self._read(i, lambda row: self.shards.video(row, first, count))

    def audio(self, i: int, first: int, count: int) -> np.ndarray:
        """Reads samples as `Shards.audio`, if shards are decoded."""
        return self._read(i, lambda row: self.shards.audio(row, first, count))

    def needed(self) -> list[int]:
        """Lists the shards that hold these clips."""
        numbers: list[int] = np.unique(self.shards.rows["shard"][self._rows]).tolist()
        return numbers

    def _read(self, i: int, read: Callable[[int], Content]) -> Content:
        try:
            return read(int(self._rows[i]))
        except MediaError as error:
            raise UserError(f"clip {self._ids[i]}: {error}; run `xkd pack` again") from None


def open_shards(manifest: Path, ids: Sequence[str], digests: Sequence[str]) -> ShardedClips | None:
    """Opens the shards beside a manifest for some of its clips; returns None if there are none.

    Raises:
        UserError: they cannot be read, or were made of other files.
    """
    folder = manifest.parent / FOLDER
    if not len(ids) or not (folder / INDEX).exists():
        return None
    shards = Shards(folder)
    rows = shards.find(digests)
    absent = np.flatnonzero(rows < 0)
    if len(absent):
        missing = ids[int(absent[0])]
        raise UserError(
            f"{folder}: does not hold clip {missing} of {manifest}; run `xkd pack` again, or remove the folder"
        )
    return ShardedClips(shards, ids, rows)


def is_complete(copy: Path, size: int) -> bool:
    """Says whether a copy of a shard is there, as large as the shard."""
    try:
        return copy.stat().st_size == size
    except OSError:
        return False
