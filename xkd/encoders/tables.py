"""Rows of embedded clips as Arrow tables: made, left out where they are not finite, and averaged over files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor

from xkd.data.windows import Cutting, Survey
from xkd.encoders.columns import PLACE
from xkd.encoders.reading import Clip

TIMES_SHOWN = 3


def table_of(
    clips: Sequence[Clip],
    features: Mapping[str, Tensor],
    surveys: Mapping[str, Survey],
    cutting: Cutting,
    half: bool = False,
) -> pa.Table:
    """Returns the rows of clips: file, start and end in seconds, features.

    Args:
        clips: any number.
        features: columns (B, D), which become lists, or (B, N, D), which become tensors of a fixed shape.
        surveys: of their files.
        cutting: how these are cut.
        half: float16 instead of float32.
    """
    longest = max(window.seconds for window in cutting.windows)
    starts = [clip.number * cutting.stride for clip in clips]
    ends = [min(start + longest, surveys[clip.file].seconds) for clip, start in zip(clips, starts, strict=True)]
    values = {name: _array(column.numpy(), half) for name, column in features.items()}
    return pa.table(dict(zip(PLACE, ([clip.file for clip in clips], starts, ends), strict=True)) | values)


def usable(tables: Iterable[pa.Table], faults: Collection[str], odd: dict[str, list[str]]) -> Iterator[pa.Table]:
    """Yields the rows of files without faults whose features are finite.

    Args:
        tables: the rows of all files.
        faults: files that could not be read to their ends.
        odd: gets the times of the clips whose features are not finite, by file.
    """
    left_out = pa.array(sorted(faults), pa.string())
    for table in tables:
        rows = table.filter(pc.invert(pc.is_in(table["file"], left_out)))
        finite = np.ones(len(rows), bool)
        for name in rows.column_names[len(PLACE) :]:
            finite &= np.isfinite(_matrix(rows[name])).all(1)
        for row in rows.select(PLACE).filter(pa.array(~finite)).to_pylist():
            odd.setdefault(row["file"], []).append(f"{row['start']:g} to {row['end']:g} s")
        yield rows.filter(pa.array(finite))


def means(tables: Iterable[pa.Table], half: bool = False) -> Iterator[pa.Table]:
    """Yields one row per file: the mean of its vectors, from its start to the end of its last clip.

    Args:
        tables: rows, those of a file one after the other.
        half: float16 instead of float32.
    """
    open_file: _Mean | None = None
    for table in tables:
        done = []
        files = np.array(table["file"].to_pylist(), object)
        for rows in np.split(np.arange(len(files)), np.flatnonzero(files[1:] != files[:-1]) + 1):
            if len(rows):
                if open_file and open_file.file != files[rows[0]]:
                    done.append(open_file.row(half))
                    open_file = None
                open_file = open_file or _Mean(files[rows[0]])
                open_file.add(table.slice(int(rows[0]), len(rows)))
        if done:
            yield pa.concat_tables(done)
    if open_file:
        yield open_file.row(half)


def write(tables: Iterable[pa.Table], path: Path) -> int:
    """Writes tables of equal columns to a Parquet file, and returns the number of rows; no rows, no file."""
    writer, count = None, 0
    try:
        for table in tables:
            if len(table):
                writer = writer or pq.ParquetWriter(path, table.schema)
                writer.write_table(table)
                count += len(table)
    finally:
        if writer:
            writer.close()
    return count


def not_finite(times: Sequence[str], clips: int) -> str:
    """Says which of a file's clips have features that are not finite."""
    more = ", ..." if len(times) > TIMES_SHOWN else ""
    return (
        f"{len(times)} of {clips} clips ({', '.join(times[:TIMES_SHOWN])}{more}): features that are not finite, "
        "from such values in the file or weights that overflow"
    )


class _Mean:
    """Adds up the rows of a file."""

    def __init__(self, file: str) -> None:
        self.file, self._rows, self._end = file, 0, 0.0
        self._sums: dict[str, np.ndarray] = {}

    def add(self, rows: pa.Table) -> None:
        self._rows += len(rows)
        self._end = rows["end"][-1].as_py()
        for name in rows.column_names[len(PLACE) :]:
            self._sums[name] = self._sums.get(name, 0) + _matrix(rows[name]).sum(0, dtype=np.float64)

    def row(self, half: bool) -> pa.Table:
        values = {
            name: _array((total / self._rows)[None].astype(np.float32), half) for name, total in self._sums.items()
        }
        return pa.table(dict(zip(PLACE, ([self.file], [0.0], [self._end]), strict=True)) | values)


def _array(values: np.ndarray, half: bool) -> pa.Array:
    stored = np.ascontiguousarray(values, np.float16 if half else np.float32)
    if stored.ndim > 2:
        return pa.FixedShapeTensorArray.from_numpy_ndarray(stored)
    return pa.array(list(stored), pa.list_(pa.from_numpy_dtype(stored.dtype)))


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    """Returns a column's values, (rows, values)."""
    array = column.combine_chunks()
    storage = array.storage if isinstance(array, pa.ExtensionArray) else array
    values: np.ndarray = storage.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(array), -1) if len(array) else np.empty((0, 1))
